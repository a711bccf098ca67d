// The programs of rows_a_test.go that need functions.

package shapes_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	rf "github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

// refreshing adds a refresh call to a program of one login.
func refreshing(p func() program, refresh rf.HTTPFetcher) func() program {
	return func() program {
		p := p()
		login := *p.login[0].Fetcher.(*rf.HTTPFetcher)
		login.RefreshField = refresh.RefreshField
		p.login = []rf.Step{{Name: "login", Fetcher: &login, Refresh: &refresh}}
		p.again, p.late, p.ahead = []string{"refresh"}, []string{"refresh"}, []string{"refresh"}
		p.note = "with the refresh call"
		return p
	}
}

func bodyOf(resp *http.Response) []byte {
	b, _ := io.ReadAll(resp.Body)
	return b
}

var programsAHooks = []func() program{
	refreshing(program1("A5", 0, &rf.HTTPFetcher{URL: "https://api.aspire.example/Authorization", JSON: m{"ClientId": clientID, "Secret": secret}, TokenField: "Token"}, rf.Config{BaseURL: "https://api.aspire.example/v1"}),
		rf.HTTPFetcher{URL: "https://api.aspire.example/Authorization/RefreshToken", TokenField: "Token", RefreshField: "RefreshToken",
			BodyFrom: func(in rf.Input) (any, error) { return m{"RefreshToken": in.Previous.RefreshToken}, nil }}),
	knowing(program1("A6", hour, &rf.HTTPFetcher{Method: "GET", URL: "https://cloud.avanan.example/v1.0/auth", TokenField: ".", Prepare: func(req *http.Request, _ rf.Input) error { avananSign(req.Header, ""); return nil }},
		rf.Config{BaseURL: "https://cloud.avanan.example/v1.0", Attach: []rf.Place{{Header: "x-av-token"}}, Prepare: func(out *http.Request, _ *rf.Token) error { avananSign(out.Header, out.URL.Path); return nil }})),
	knowing(func() program {
		const identity = "https://identity.docuware.example"
		return program{row: "A10", login: []rf.Step{
			{Name: "info", Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://acme.docuware.example/DocuWare/Platform/Home/IdentityServiceInfo", TokenField: "IdentityServiceUrl"}},
			{Name: "discovery", DependsOn: []string{"info"}, Fetcher: &rf.HTTPFetcher{Method: "GET", Origins: []string{identity}, TokenField: "token_endpoint",
				URLFrom: func(in rf.Input) (string, error) {
					return in.Parents["info"].AccessToken + "/.well-known/openid-configuration", nil
				}}},
			{Name: "login", DependsOn: []string{"discovery"}, Fetcher: &rf.HTTPFetcher{Origins: []string{identity},
				URLFrom: func(in rf.Input) (string, error) { return in.Parents["discovery"].AccessToken, nil },
				Form:    vs{"grant_type": {"password"}, "scope": {"docuware.platform"}, "client_id": {"docuware.platform.net.client"}, "username": {user}, "password": {password}}}},
		}, api: rf.Config{BaseURL: "https://acme.docuware.example/DocuWare/Platform"}}
	}),
	program1("A32", 0, &rf.HTTPFetcher{Method: "GET", URL: "https://review.redtail.example/api/public/v1/authentication", Header: headers("Authorization", basicOf(apiKey+":"+user+":"+password)), TokenField: "authenticated_user.user_key"},
		rf.Config{BaseURL: "https://review.redtail.example/api/public/v1", Attach: []rf.Place{}, Prepare: func(out *http.Request, tok *rf.Token) error {
			out.Header.Set("Authorization", "Userkeyauth "+base64.StdEncoding.EncodeToString([]byte(apiKey+":"+tok.AccessToken)))
			return nil
		}}),
	knowing(func() program {
		return program{row: "A35", shape: "Sage Intacct (XML)", login: []rf.Step{{Name: "login", Fetcher: intacct}}, api: rf.Config{BaseURL: "https://api.intacct.example/ia/xml"}}
	}),
	knowing(func() program {
		return program{row: "A35", shape: "Sage Intacct (XML), the vendor's way", login: []rf.Step{{Name: "login", Fetcher: intacct}}, api: rf.Config{
			BaseURL: "https://api.intacct.example/ia/xml/xmlgw.phtml", Origins: []string{"https://*.intacct.example"}, Attach: []rf.Place{},
			BaseURLFrom: func(tok *rf.Token) (string, error) { return tok.Value("endpoint"), nil },
			Prepare: func(out *http.Request, tok *rf.Token) error {
				return rewrite(out, func(body []byte) []byte {
					return bytes.Replace(body, []byte("<authentication></authentication>"), []byte("<authentication><sessionid>"+tok.AccessToken+"</sessionid></authentication>"), 1)
				})
			},
		}}
	}),
	knowing(dataCloudProgram("Salesforce (Data Cloud)", []string{"exchange"})),
	knowing(dataCloudProgram("Salesforce (Data Cloud), the first token good once", []string{"login", "exchange"})),
	program1("A38", 0, oauth2source.JWTBearer(oauth2source.Config{TokenURL: "https://login.salesforce.example/services/oauth2/token", Extra: []string{"instance_url"}},
		&oauth2source.JWT{Key: rsaKey, Issuer: "app-1", Subject: user, Audience: "https://login.salesforce.example"}), rf.Config{
		BaseURL: "https://acme.my.salesforce.example/services/data/v66.0", Origins: []string{"https://*.my.salesforce.example"},
		BaseURLFrom: func(tok *rf.Token) (string, error) { return tok.Value("instance_url") + "/services/data/v66.0", nil },
	}),
	knowing(func() program {
		p := refreshing(program1("A39", 0, &rf.HTTPFetcher{URL: "https://api.salesmessage.example/pub/v2.2/auth/token", Header: headers("Authorization", "Bearer "+patToken), JSON: m{}}, rf.Config{BaseURL: "https://api.salesmessage.example/pub/v2.2"}),
			rf.HTTPFetcher{URL: "https://api.salesmessage.example/pub/v2.2/auth/token", JSON: m{}, RefreshField: "access_token", Prepare: func(req *http.Request, in rf.Input) error {
				req.Header.Set("Authorization", "Bearer "+in.Previous.RefreshToken)
				return nil
			}})()
		p.again, p.late = nil, nil // a dead token refreshes nothing
		return p
	}),
	knowing(program1("A43", 0, &rf.HTTPFetcher{URL: "https://api.successfactors.example/oauth/token", BodyFrom: func(rf.Input) (any, error) {
		text, err := samlSign("https://api.successfactors.example/oauth/token")
		return vs{"company_id": {"acme"}, "client_id": {"app-1"}, "new_token": {"true"}, "grant_type": {"urn:ietf:params:oauth:grant-type:saml2-bearer"}, "assertion": {text}}, err
	}}, rf.Config{BaseURL: "https://api.successfactors.example/odata/v2"})),
	knowing(func() program {
		return program{row: "A44", login: []rf.Step{
			{Name: "team", Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://accounts.sellercloud.example/api/teams?team=acme", TokenField: "restApiEndpoint"}},
			{Name: "login", DependsOn: []string{"team"}, Fetcher: &rf.HTTPFetcher{
				URLFrom: func(in rf.Input) (string, error) { return in.Parents["team"].AccessToken + "/api/token", nil },
				Origins: []string{"https://*.sellercloud.example"}, JSON: m{"Username": user, "Password": password},
				Read: func(in rf.Input, resp *http.Response, body []byte) (*rf.Token, error) {
					var ans struct {
						Token string `json:"access_token"`
						In    int    `json:"expires_in"`
					}
					err := json.Unmarshal(body, &ans)
					return &rf.Token{AccessToken: ans.Token, Expiry: time.Now().Add(time.Duration(ans.In) * time.Second), Extra: m{"base": in.Parents["team"].AccessToken}}, err
				}}},
		}, api: rf.Config{BaseURL: "https://acme.sellercloud.example/rest", Origins: []string{"https://*.sellercloud.example"},
			BaseURLFrom: func(tok *rf.Token) (string, error) { return tok.Value("base"), nil }}}
	}),
	program1("A45", 0, &rf.HTTPFetcher{URL: "https://open.semble.example/graphql", JSON: m{"query": `mutation { signIn(data: { email: "` + user + `", password: "p%40ss" }) { token } }`}, TokenField: "data.signIn.token"},
		rf.Config{BaseURL: "https://open.semble.example/graphql", Attach: bareIn("x-token"), Refused: func(resp *http.Response) bool {
			return strings.Contains(string(bodyOf(resp)), `"code":"UNAUTHENTICATED"`)
		}}),
	knowing(func() program {
		p := program1("A51", 0, &rf.HTTPFetcher{URL: "https://tableau.example/api/3.27/auth/signin", JSON: tableau, Read: readDays}, rf.Config{BaseURL: "https://tableau.example/api/3.27", Attach: bareIn("x-tableau-auth"), RefusedStatus: []int{403}})()
		p.shape = "Tableau (PAT), if days, hours and minutes are meant"
		p.note = "no login too many; the field reads hours, minutes and seconds, and so logs in too soon"
		return p
	}),
	refreshing(knowing(program1("A53", 0, &rf.HTTPFetcher{URL: "https://api.timify.example/v1/auth/token", JSON: m{"appid": clientID, "appsecret": secret}, TokenField: "accessToken", ExpiresInField: "expires"}, rf.Config{BaseURL: "https://api.timify.example/v1", Attach: bareIn("Authorization")})),
		rf.HTTPFetcher{URL: "https://api.timify.example/v1/auth/refresh", TokenField: "accessToken", ExpiresInField: "expires", RefreshField: "refreshToken",
			BodyFrom: func(in rf.Input) (any, error) { return m{"refreshtoken": in.Previous.RefreshToken}, nil }}),
	knowing(program1("A55", 5*day, &rf.HTTPFetcher{URL: "https://tripletex.example/v2/token/session/:create", TokenField: "value.token", BodyFrom: func(rf.Input) (any, error) {
		return m{"consumerToken": apiKey, "employeeToken": patToken, "expirationDate": time.Now().AddDate(0, 0, 7).Format(time.DateOnly)}, nil
	}}, rf.Config{BaseURL: "https://tripletex.example/v2", Attach: []rf.Place{}, Prepare: func(out *http.Request, tok *rf.Token) error {
		out.SetBasicAuth("17", tok.AccessToken)
		return nil
	}})),
	refreshing(knowing(program1("A57", 0, &rf.HTTPFetcher{URL: "https://api.valley.example/auth/login", JSON: m{"email": user, "password": password}}, rf.Config{BaseURL: "https://api.valley.example"})),
		rf.HTTPFetcher{URL: "https://api.valley.example/auth/refresh", BodyFrom: func(in rf.Input) (any, error) { return m{"refresh_token": in.Previous.RefreshToken}, nil }}),
	program1("A58", 0, &rf.HTTPFetcher{URL: "https://acme.veevavault.example/api/v25.1/auth", Form: vs{"username": {user}, "password": {password}}, TokenField: "sessionId"},
		rf.Config{BaseURL: "https://acme.veevavault.example/api/v25.1", Attach: bareIn("Authorization"), Refused: vaultRefused}),
	func() program {
		return program{row: "A59", login: []rf.Step{
			{Name: "oauth", Fetcher: &rf.HTTPFetcher{URL: "https://idp.example/oauth2/token", ClientAuth: basicClientAuth, Form: vs{"grant_type": {"client_credentials"}, "scope": {"vault"}}}},
			{Name: "login", DependsOn: []string{"oauth"}, Fetcher: &rf.HTTPFetcher{URL: "https://login.veevavault.example/auth/oauth/session/profile-1", HeaderFrom: map[string]string{"Authorization": "oauth"},
				Form: vs{"vaultDNS": {"acme.veevavault.example"}, "client_id": {"app-1"}}, TokenField: "sessionId",
				Classify: func(resp *http.Response, body []byte) *rf.AuthError {
					if !bytes.Contains(body, []byte(`"FAILURE"`)) {
						return nil
					}
					err := rf.NewAuthError(resp, body, errors.New("the vault refuses the token"))
					err.ParentRefused, err.Permanent = true, false
					return err
				}}},
		}, api: rf.Config{BaseURL: "https://acme.veevavault.example/api/v25.1", Attach: bareIn("Authorization"), Refused: vaultRefused}}
	},
}

func dataCloudProgram(shape string, again []string) func() program {
	return func() program {
		return program{row: "A37", shape: shape, again: again, login: []rf.Step{
			{Name: "login", Fetcher: &rf.HTTPFetcher{URL: "https://login.salesforce.example/services/oauth2/token", Form: vs{"grant_type": {jwtBearer}, "assertion": {readyJWT}}}},
			{Name: "exchange", DependsOn: []string{"login"}, Fetcher: &rf.HTTPFetcher{Origins: []string{"https://*.my.salesforce.example"},
				URLFrom: func(in rf.Input) (string, error) {
					return in.Parents["login"].Value("instance_url") + "/services/a360/token", nil
				},
				BodyFrom: func(in rf.Input) (any, error) {
					return vs{"grant_type": {"urn:salesforce:grant-type:external:cdp"}, "subject_token": {in.Parents["login"].AccessToken}, "subject_token_type": {oauth2source.AccessTokenType}}, nil
				}}},
		}, api: rf.Config{BaseURL: "https://acme.c360a.salesforce.example/api/v2", Origins: []string{"https://*.c360a.salesforce.example"},
			BaseURLFrom: func(tok *rf.Token) (string, error) {
				return "https://" + strings.TrimPrefix(tok.Value("instance_url"), "https://") + "/api/v2", nil
			}}}
	}
}

// readDays reads a duration as days, hours and minutes.
func readDays(_ rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
	var ans struct {
		Credentials struct{ Token, EstimatedTimeToExpiration string }
	}
	if err := json.Unmarshal(body, &ans); err != nil {
		return nil, err
	}
	var d, h, min int
	_, err := fmt.Sscanf(ans.Credentials.EstimatedTimeToExpiration, "%d:%d:%d", &d, &h, &min)
	life := time.Duration(d)*day + time.Duration(h)*hour + time.Duration(min)*time.Minute
	return &rf.Token{AccessToken: ans.Credentials.Token, Expiry: time.Now().Add(life)}, err
}

func vaultRefused(resp *http.Response) bool {
	var ans struct {
		Errors []struct{ Type string }
	}
	return json.Unmarshal(bodyOf(resp), &ans) == nil && len(ans.Errors) > 0 && ans.Errors[0].Type == "INVALID_SESSION_ID"
}

func avananSign(h http.Header, path string) {
	b := make([]byte, 16)
	rand.Read(b)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	date := time.Now().UTC().Format("2006-01-02T15:04:05")
	sum := sha256.Sum256([]byte(base64.StdEncoding.EncodeToString([]byte(id + clientID + date + path + secret))))
	h.Set("x-av-app-id", clientID)
	h.Set("x-av-req-id", id)
	h.Set("x-av-date", date)
	h.Set("x-av-sig", hex.EncodeToString(sum[:]))
}

// rewrite changes the body of a request.
func rewrite(out *http.Request, change func([]byte) []byte) error {
	r, err := out.GetBody()
	if err != nil {
		return err
	}
	old, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	text := change(old)
	out.ContentLength = int64(len(text))
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	out.Body, err = out.GetBody()
	return err
}

var intacct = &rf.HTTPFetcher{
	URL: "https://api.intacct.example/ia/xml/xmlgw.phtml", Header: headers("Content-Type", "text/xml"),
	BodyFrom: func(rf.Input) (any, error) {
		var b bytes.Buffer
		b.WriteString("<request><control>")
		element(&b, "senderid", "acme")
		element(&b, "password", secret)
		element(&b, "controlid", time.Now().UTC().Format(time.RFC3339))
		b.WriteString("</control><operation><authentication><login>")
		element(&b, "userid", user)
		element(&b, "companyid", "ACME")
		element(&b, "password", password)
		b.WriteString("</login></authentication><content><function><getAPISession/></function></content></operation></request>")
		return b.Bytes(), nil
	},
	Read: func(_ rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
		var ans struct {
			Session  string    `xml:"operation>result>data>api>sessionid"`
			Endpoint string    `xml:"operation>result>data>api>endpoint"`
			Until    time.Time `xml:"operation>authentication>sessiontimeout"`
		}
		err := xml.Unmarshal(body, &ans)
		return &rf.Token{AccessToken: ans.Session, Expiry: ans.Until, Extra: m{"endpoint": ans.Endpoint}}, err
	},
}

func element(b *bytes.Buffer, name, text string) {
	fmt.Fprintf(b, "<%s>", name)
	xml.EscapeText(b, []byte(text))
	fmt.Fprintf(b, "</%s>", name)
}

// samlSign is a SAML assertion of canonical XML, signed over itself.
func samlSign(recipient string) (string, error) {
	now, id := time.Now().UTC(), "_"+rand.Text()
	head := fmt.Sprintf(`<saml2:Assertion xmlns:saml2="urn:oasis:names:tc:SAML:2.0:assertion" ID="%s" IssueInstant="%s" Version="2.0"><saml2:Issuer>app-1</saml2:Issuer>`, id, now.Format(time.RFC3339))
	tail := fmt.Sprintf(`<saml2:Subject><saml2:NameID>%s</saml2:NameID><saml2:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml2:SubjectConfirmationData NotOnOrAfter="%s" Recipient="%s"></saml2:SubjectConfirmationData></saml2:SubjectConfirmation></saml2:Subject>`+
		`<saml2:Conditions><saml2:AudienceRestriction><saml2:Audience>www.successfactors.com</saml2:Audience></saml2:AudienceRestriction></saml2:Conditions><saml2:AuthnStatement SessionIndex="%s"></saml2:AuthnStatement>`+
		`<saml2:AttributeStatement><saml2:Attribute Name="api_key"><saml2:AttributeValue>app-1</saml2:AttributeValue></saml2:Attribute></saml2:AttributeStatement></saml2:Assertion>`,
		user, now.Add(10*time.Minute).Format(time.RFC3339), recipient, rand.Text())
	digest := sha256.Sum256([]byte(head + tail))
	info := `<ds:SignedInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"></ds:SignatureMethod>` +
		`<ds:Reference URI="#` + id + `"><ds:DigestValue>` + base64.StdEncoding.EncodeToString(digest[:]) + `</ds:DigestValue></ds:Reference></ds:SignedInfo>`
	sum := sha256.Sum256([]byte(info))
	sig, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	text := head + `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` + info + `<ds:SignatureValue>` + base64.StdEncoding.EncodeToString(sig) + `</ds:SignatureValue></ds:Signature>` + tail
	return base64.StdEncoding.EncodeToString([]byte(text)), nil
}
