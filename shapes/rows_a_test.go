// The facts of the 63 two-step logins, as of August 2026: what the server of each row
// takes and answers. No login was tried at a vendor. Where a fact isn't known (which
// unit, text or JSON string), the server does both, in turns.

package shapes_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"time"
)

const (
	jwtBearer     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	oauth         = `{"access_token":"$token","expires_in":$life}`
	bareOAuth     = `{"access_token":"$token"}`
)

type m = map[string]any

// things are the requests of most rows.
var things = []request{
	{method: "GET", path: "/things?page=2&q=a%20b"},
	{method: "POST", path: "/things", ctype: "application/json", body: `{"name":"x y","n":[1,2.50]}`},
}

// said is a list of answers without anything special.
func said(bodies ...string) (out []answer) {
	for _, body := range bodies {
		out = append(out, answer{body: body})
	}
	return out
}

// one is the login of most rows: one call that gives one token.
func one(url string, f facts, answers ...string) []call {
	return []call{{name: "login", url: url, facts: f, to: "login", gives: []string{"token"}, answers: said(answers...)}}
}

// get makes the calls GETs.
func get(calls []call) []call {
	for i := range calls {
		calls[i].method = "GET"
	}
	return calls
}

func on(base string, f facts) api { return api{base: base, facts: f} }

func header(pairs ...any) facts {
	f := facts{header: m{}}
	for i := 0; i < len(pairs); i += 2 {
		f.header[pairs[i].(string)] = pairs[i+1]
	}
	return f
}

func (f facts) with(b body) facts { f.body = b; return f }

var asBearer = header("Authorization", bearer("$token"))

// q is text as a query holds it.
func q(text string) string { return url.QueryEscape(text) }

func cc(more form) form { return grantForm("client_credentials", more) }

func grantForm(typ string, more form) form {
	f := form{"grant_type": typ}
	for k, v := range more {
		f[k] = v
	}
	return f
}

const (
	second = time.Second
	hour   = time.Hour
	day    = 24 * time.Hour
)

var rowsA = []shape{
	{row: "A1", name: "3CX", life: hour,
		calls: one("https://pbx.example/connect/token", facts{body: cc(form{"client_id": clientID, "client_secret": secret})}, bareOAuth),
		api:   on("https://pbx.example/xapi/v1", asBearer)},
	{row: "A2", name: "AgencyZoom", life: hour,
		calls: []call{{name: "login", url: "https://api.agencyzoom.example/v1/api/auth/login", facts: facts{body: J{"username": user, "password": password}},
			to: "login", gives: []string{"jwt"}, answers: said(`{"jwt":"$jwt"}`)}},
		api: on("https://api.agencyzoom.example/v1/api", header("Authorization", bearer("$jwt")))},
	{row: "A3", name: "Altrata", life: hour,
		calls: one("https://login.altrata.example/token?grant_type=client_credentials", header("Authorization", basicClient(user, password), "X-Api-Key", apiKey).with(nothing{}), oauth),
		api:   on("https://api.altrata.example/v2", header("Authorization", bearer("$token"), "X-Api-Key", apiKey))},
	{row: "A4", name: "Apple Business Manager", life: hour,
		calls: one("https://account.apple.example/auth/oauth2/v2/token", facts{body: cc(form{"client_id": "BUSINESSAPI.1", "scope": "business.api", "client_assertion_type": assertionType,
			"client_assertion": assertion{alg: "ES256", kid: "key-1", iss: "BUSINESSAPI.1", sub: "BUSINESSAPI.1", aud: "https://account.apple.example/auth/oauth2/v2/token", life: hour, jti: true}.is()})}, oauth),
		api: on("https://api-business.apple.example/v1", asBearer)},
	{row: "A5", name: "Aspire", life: hour,
		calls: []call{
			{name: "login", url: "https://api.aspire.example/Authorization", facts: facts{body: J{"ClientId": clientID, "Secret": secret}},
				to: "login", gives: []string{"token", "refresh"}, answers: said(`{"Token":"$token","RefreshToken":"$refresh"}`)},
			{name: "refresh", renewal: true, url: "https://api.aspire.example/Authorization/RefreshToken", facts: facts{body: J{"RefreshToken": "$refresh"}}, from: "login", spends: true,
				to: "login", gives: []string{"token", "refresh"}, answers: said(`{"Token":"$token","RefreshToken":"$refresh"}`)},
		},
		api: on("https://api.aspire.example/v1", asBearer)},
	{row: "A6", name: "Avanan", life: hour,
		calls: get(one("https://cloud.avanan.example/v1.0/auth", header("X-Av-App-Id", clientID, "X-Av-Req-Id", randomID, "X-Av-Date", nowAs("2006-01-02T15:04:05"), "X-Av-Sig", avananSig(false)), `$token`, `"$token"`)),
		api:   on("https://cloud.avanan.example/v1.0", header("X-Av-Token", "$token", "X-Av-App-Id", clientID, "X-Av-Req-Id", randomID, "X-Av-Date", nowAs("2006-01-02T15:04:05"), "X-Av-Sig", avananSig(true)))},
	{row: "A7", name: "Breezy HR",
		calls: one("https://api.breezy.example/v3/signin", facts{body: J{"email": user, "password": password}}, bareOAuth),
		api:   on("https://api.breezy.example/v3", header("Authorization", "$token"))},
	{row: "A8", name: "Datto RMM (password grant)", life: hour,
		calls: one("https://pinotage.datto.example/auth/oauth/token", header("Authorization", basicClient("public-client", "public")).with(grantForm("password", form{"username": apiKey, "password": password})), oauth),
		api:   on("https://pinotage.datto.example/api", asBearer)},
	{row: "A9", name: "Dayforce, sent on to another host", life: hour, calls: dayforce,
		impossible: "the redirect leads to another host, and a token goes to no host that a redirect names",
		api:        api{entry: "https://api.dayforce.example/Api/acme", base: "https://us241.dayforce.example/Api/acme", facts: asBearer}},
	{row: "A9", name: "Dayforce, sent on within the host", life: hour, calls: dayforce,
		api: api{entry: "https://api.dayforce.example/Api/acme", base: "https://api.dayforce.example/us241/acme", facts: asBearer}},
	{row: "A10", name: "DocuWare", life: hour,
		calls: []call{
			{name: "info", method: "GET", url: "https://acme.docuware.example/DocuWare/Platform/Home/IdentityServiceInfo", to: "info", gives: []string{"realm"}, public: true,
				answers: said(`{"IdentityServiceUrl":"https://identity.docuware.example/$realm"}`)},
			{name: "discovery", method: "GET", url: "https://identity.docuware.example/$realm/.well-known/openid-configuration", from: "info", to: "discovery", gives: []string{"path"}, public: true,
				answers: said(`{"token_endpoint":"https://identity.docuware.example/$realm/$path"}`)},
			{name: "login", url: "https://identity.docuware.example/$realm/$path", from: "discovery",
				facts: facts{body: grantForm("password", form{"scope": "docuware.platform", "client_id": "docuware.platform.net.client", "username": user, "password": password})},
				to:    "login", gives: []string{"token"}, answers: said(oauth)},
		},
		api: on("https://acme.docuware.example/DocuWare/Platform", asBearer)},
	{row: "A11", name: "Drupal", life: hour,
		calls: one("https://drupal.example/oauth/token", facts{body: cc(form{"client_id": clientID, "client_secret": secret, "username": user})}, oauth),
		api:   on("https://drupal.example/jsonapi", asBearer)},
	{row: "A12", name: "ECU360 (test)", life: 900 * second,
		calls: []call{{name: "login", url: "https://test.ecu360.example/auth/login", facts: header("Ecu360-Api-Key", apiKey).with(J{"userName": user, "password": password, "isEncrypted": false, "mfaToken": ""}),
			to: "login", gives: []string{"jwt"}, answers: said(`{"jwtToken":"$jwt"}`)}},
		api: on("https://test.ecu360.example/api", header("Authorization", bearer("$jwt")))},
	{row: "A13", name: "ECU360 (production)", life: 900 * second,
		calls: []call{{name: "login", url: "https://ecu360.example/auth/login", facts: header("Ecu360-Api-Key", apiKey).with(J{"userName": user, "password": password, "isEncrypted": false, "mfaToken": ""}),
			to: "login", gives: []string{"jwt"}, answers: said(`{"jwtToken":"$jwt"}`)}},
		api: on("https://ecu360.example/api", header("Authorization", bearer("$jwt")))},
	{row: "A14", name: "Embat", life: hour,
		calls: one("https://tellmeapi.embat.example/customers/users/login", facts{body: J{"email": user, "password": password}}, `{"idToken":"$token"}`),
		api:   on("https://tellmeapi.embat.example", asBearer)},
	{row: "A15", name: "Google service account", life: hour,
		calls: one("https://oauth2.googleapis.example/token", facts{body: grantForm(jwtBearer, form{"assertion": assertion{alg: "RS256", typ: true, iss: "robot@project.example", sub: user, aud: "https://oauth2.googleapis.example/token",
			more: map[string]string{"scope": "admin.directory.user admin.directory.group"}, life: hour}.is()})}, oauth),
		api: on("https://admin.googleapis.example/admin/directory/v1", asBearer)},
	{row: "A16", name: "Heap", life: hour,
		calls: one("https://heapanalytics.example/api/public/v0/auth_token", header("Authorization", basic("11:"+apiKey)).with(nothing{}), oauth),
		api:   on("https://heapanalytics.example/api/public/v0", asBearer)},
	{row: "A17", name: "Jamf Pro (basic)", life: 30 * time.Minute,
		calls: one("https://acme.jamf.example/api/v1/auth/token", header("Authorization", basic(user+":"+password)).with(nothing{}), `{"token":"$token","expires":"$expires"}`),
		api:   on("https://acme.jamf.example/api", asBearer)},
	{row: "A18", name: "JobDiva",
		calls: get(one("https://api.jobdiva.example/apiv2/authenticate?clientid=17&username="+q(user)+"&password="+q(password), facts{}, `$token`, `"$token"`)),
		api:   on("https://api.jobdiva.example/apiv2", asBearer)},
	{row: "A19", name: "Leapsome", life: hour,
		calls: get(one("https://api.leapsome.example/scim/v1/token?secret="+q(secret), facts{}, `{"token":"$token","expiresIn":$life}`)),
		api:   on("https://api.leapsome.example/scim/v1", asBearer)},
	{row: "A20", name: "Looker", life: hour,
		calls: one("https://looker.example/api/4.0/login", facts{body: form{"client_id": clientID, "client_secret": secret}}, oauth),
		api:   on("https://looker.example/api/4.0", asBearer)},
	{row: "A21", name: "Microsoft (certificate)", life: hour,
		calls: one("https://login.microsoft.example/tenant/oauth2/v2.0/token", facts{body: cc(form{"client_id": "app-1", "scope": "https://graph.microsoft.example/.default", "client_assertion_type": assertionType,
			"client_assertion": assertion{alg: "PS256", x5t: x5tS256, iss: "app-1", sub: "app-1", aud: "https://login.microsoft.example/tenant/oauth2/v2.0/token", life: hour, jti: true}.is()})}, oauth),
		api: on("https://graph.microsoft.example/v1.0", asBearer)},
	{row: "A22", name: "MIP Cloud",
		calls: one("https://login.mip.example/api/v1/sso/mipadv/login", facts{body: J{"username": user, "password": password, "org": "acme"}}, `{"AccessToken":"$token"}`),
		api:   on("https://api.mip.example/api/v1", header("Authorization-Token", "$token"))},
	{row: "A23", name: "MIP On Premise",
		calls: one("https://mip.acme.example/api/security/login", facts{body: J{"login": user, "password": password, "org": "acme"}}, `{"AccessToken":"$token"}`),
		api:   on("https://mip.acme.example/api", header("Authorization-Token", "$token"))},
	{row: "A24", name: "ModMed",
		calls: one("https://stage.ema-api.example/firm/ema/ws/oauth2/grant", header("X-Api-Key", apiKey).with(grantForm("password", form{"username": user, "password": password})), bareOAuth),
		api:   on("https://stage.ema-api.example/firm/ema/fhir/v2", header("Authorization", bearer("$token"), "X-Api-Key", apiKey))},
	{row: "A25", name: "N-able N-central", life: hour,
		calls: one("https://ncentral.example/api/auth/authenticate", header("Authorization", bearer(patToken)).with(nothing{}), `{"tokens":{"access":{"token":"$token","expirySeconds":$life}}}`),
		api:   on("https://ncentral.example/api", asBearer)},
	{row: "A26", name: "NetSuite (client credentials)", life: hour,
		calls: one("https://123.suitetalk.example/services/rest/auth/oauth2/v1/token", facts{body: cc(form{"client_assertion_type": assertionType,
			"client_assertion": assertion{alg: "RS256", kid: "cert-1", iss: "consumer-1", aud: "https://123.suitetalk.example/services/rest/auth/oauth2/v1/token", life: hour, jti: true}.is()})}, oauth),
		api: on("https://123.suitetalk.example/services/rest", asBearer)},
	{row: "A27", name: "Odoo (client credentials)", life: hour,
		calls: one("https://odoo.example/restapi/1.0/common/oauth2/access_token", facts{body: cc(form{"client_id": clientID, "client_secret": secret})}, `{"access_token":"$token","access_token_validity":$life}`),
		api:   on("https://odoo.example/restapi/1.0", asBearer)},
	{row: "A28", name: "Orange Logic", life: hour,
		calls: one("https://acme.orangelogic.example/webapi/security/clientcredentials", facts{body: J{"client_id": clientID, "client_secret": secret}}, oauth),
		api:   on("https://acme.orangelogic.example/api", asBearer)},
	{row: "A29", name: "Passportal", life: hour,
		calls: one("https://us.passportal.example/api/v2/auth/client_token", header("X-Key", clientID, "X-Hash", apiKey).with(J{"scope": "docs_api", "content": "acme"}), `{"access_token":"$token","expiry_time":$unix}`, `{"access_token":"$token","expiry_time":$unixms}`),
		api:   on("https://us.passportal.example/api/v2", header("X-Access-Token", "$token"))},
	{row: "A30", name: "Perimeter81", life: hour,
		calls: one("https://auth.perimeter81.example/api/v1/auth/authorize", facts{body: J{"apiKey": apiKey, "grantType": "api_key"}}, `{"data":{"accessToken":"$token","accessTokenExpire":$unix}}`, `{"data":{"accessToken":"$token","accessTokenExpire":"$expires"}}`),
		api:   on("https://api.perimeter81.example/api/rest", asBearer)},
	{row: "A31", name: "pVerify", life: hour,
		calls: one("https://api.pverify.example/Token", header("Client-Api-Id", apiKey).with(cc(form{"Client_Id": clientID, "Client_Secret": secret})), oauth),
		api:   on("https://api.pverify.example/API", header("Authorization", bearer("$token"), "Client-Api-Id", apiKey))},
	{row: "A32", name: "Redtail CRM (sandbox)",
		calls: get(one("https://review.redtail.example/api/public/v1/authentication", header("Authorization", basic(apiKey+":"+user+":"+password)), `{"authenticated_user":{"user_key":"$token"}}`)),
		api:   on("https://review.redtail.example/api/public/v1", header("Authorization", scheme64("Userkeyauth", apiKey+":$token", false)))},
	{row: "A33", name: "ResearchDesk", life: hour,
		calls: one("https://acme.researchdesk.example/api/auth/login", facts{body: J{"email": user, "password": password}}, `{"token":"$token","expires":"$expires"}`, `{"token":"$token","expires":$unixms}`),
		api:   on("https://acme.researchdesk.example/api", asBearer)},
	{row: "A34", name: "Sage 300 CRE",
		calls: one("https://sage.acme.example/api/v1/login", header("X-Dppkey", apiKey).with(J{"userid": user, "password": password}), `{"Data":"$token"}`),
		api:   on("https://sage.acme.example/api/v1", header("X-Credentials", "$token", "X-Dppkey", apiKey, "X-Databasename", "acme"))},
	{row: "A35", name: "Sage Intacct (XML)", life: hour,
		calls: intacctLogin, api: on("https://api.intacct.example/ia/xml", asBearer)},
	{row: "A35", name: "Sage Intacct (XML), the vendor's way", life: hour,
		calls: intacctLogin,
		api: api{base: "https://$node.intacct.example/ia/xml/xmlgw.phtml", ok: `<response><control><status>success</status></control></response>`, requests: []request{
			{method: "POST", ctype: "text/xml", body: intacctRead, facts: facts{body: checked(func(at *at) error {
				want := strings.Replace(intacctRead, "<authentication></authentication>", "<authentication><sessionid>"+at.v["token"]+"</sessionid></authentication>", 1)
				if string(at.body) != want {
					return errValue
				}
				return nil
			})}},
		}}},
	{row: "A36", name: "Sage Intacct (client credentials)", life: hour,
		calls: one("https://api.intacct.example/ia/api/v1/oauth2/token", facts{body: cc(form{"client_id": clientID, "client_secret": secret, "username": "ada@acme", "session_id": ""})}, oauth),
		api:   on("https://api.intacct.example/ia/api/v1", asBearer)},
	{row: "A37", name: "Salesforce (Data Cloud)", life: hour, calls: dataCloud(false), api: on("https://$endpoint.c360a.salesforce.example/api/v2", asBearer)},
	{row: "A37", name: "Salesforce (Data Cloud), the first token good once", life: hour, calls: dataCloud(true), api: on("https://$endpoint.c360a.salesforce.example/api/v2", asBearer)},
	{row: "A38", name: "Salesforce (JWT)",
		calls: []call{{name: "login", url: "https://login.salesforce.example/services/oauth2/token",
			facts: facts{body: grantForm(jwtBearer, form{"assertion": assertion{alg: "RS256", typ: true, iss: "app-1", sub: user, aud: "https://login.salesforce.example", life: hour}.is()})},
			to:    "login", gives: []string{"token", "instance"}, answers: said(`{"access_token":"$token","instance_url":"https://$instance.my.salesforce.example"}`)}},
		api: on("https://$instance.my.salesforce.example/services/data/v66.0", asBearer)},
	{row: "A39", name: "Salesmsg (PAT)", life: hour,
		calls: []call{
			{name: "login", url: "https://api.salesmessage.example/pub/v2.2/auth/token", facts: header("Authorization", bearer(patToken)).with(J{}), to: "login", gives: []string{"token"}, answers: said(oauth)},
			{name: "refresh", renewal: true, url: "https://api.salesmessage.example/pub/v2.2/auth/token", facts: header("Authorization", bearer("$token")).with(J{}), from: "login", to: "login", gives: []string{"token"}, answers: said(oauth)},
		},
		api: on("https://api.salesmessage.example/pub/v2.2", asBearer)},
	{row: "A40", name: "SAP Business One", life: 1700 * second,
		calls: []call{{name: "login", url: "https://b1.example:50000/b1s/v1/Login", facts: facts{body: J{"CompanyDB": "ACME", "UserName": user, "DBInstance": "NDB", "Password": password}},
			to: "login", gives: []string{"token", "route"}, answers: []answer{{body: `{"SessionId":"$token","SessionTimeout":30}`,
				cookies: []string{"B1SESSION=$token; HttpOnly; Path=/b1s", "ROUTEID=.$route; path=/b1s"}}}}},
		api: on("https://b1.example:50000/b1s/v1", facts{cookie: m{"B1SESSION": "$token", "ROUTEID": ".$route"}})},
	{row: "A41", name: "SAP Concur (password grant)", life: hour,
		calls: []call{{name: "login", url: "https://us.api.concur.example/oauth2/v0/token", facts: facts{body: grantForm("password", form{"client_id": clientID, "client_secret": secret, "username": user, "password": password})},
			to: "login", gives: []string{"token", "refresh"}, answers: said(`{"access_token":"$token","expires_in":$life,"refresh_token":"$refresh"}`)}},
		api: on("https://us.api.concur.example", asBearer)},
	{row: "A42", name: "SAP Fieldglass", life: hour,
		calls: one("https://acme.fieldglass.example/api/oauth2/v2.0/token?grant_type=client_credentials&response_type=token", header("Authorization", basicClient(clientID, secret), "X-Applicationkey", apiKey).with(nothing{}), oauth),
		api:   on("https://acme.fieldglass.example/api/v1", asBearer)},
	{row: "A43", name: "SAP SuccessFactors", life: hour,
		calls: one("https://api.successfactors.example/oauth/token", facts{body: grantForm("urn:ietf:params:oauth:grant-type:saml2-bearer", form{"company_id": "acme", "client_id": "app-1", "new_token": "true", "assertion": samlAssertion})}, oauth),
		api:   on("https://api.successfactors.example/odata/v2", asBearer)},
	{row: "A44", name: "Sellercloud", life: hour,
		calls: []call{
			{name: "team", method: "GET", url: "https://accounts.sellercloud.example/api/teams?team=acme", to: "team", gives: []string{"endpoint"}, public: true, answers: said(`{"restApiEndpoint":"https://$endpoint.sellercloud.example/rest"}`)},
			{name: "login", url: "https://$endpoint.sellercloud.example/rest/api/token", facts: facts{body: J{"Username": user, "Password": password}}, from: "team", to: "login", gives: []string{"token"}, answers: said(oauth)},
		},
		api: on("https://$endpoint.sellercloud.example/rest", asBearer)},
	{row: "A45", name: "Semble",
		calls: one("https://open.semble.example/graphql", facts{body: J{"query": `mutation { signIn(data: { email: "` + user + `", password: "p%40ss" }) { token } }`}}, `{"data":{"signIn":{"token":"$token"}}}`),
		api: api{base: "https://open.semble.example/graphql", facts: header("X-Token", "$token"), ok: `{"data":{"patients":[]}}`,
			refusals: []answer{{body: `{"data":null,"errors":[{"message":"Not signed in","extensions":{"code":"UNAUTHENTICATED"}}]}`}},
			requests: []request{
				{method: "POST", ctype: "application/json", body: `{"query":"{ patients { id } }"}`},
				{method: "POST", ctype: "application/json", body: `{"query":"{ secrets }"}`, other: `{"data":null,"errors":[{"message":"No","extensions":{"code":"FORBIDDEN"}}]}`},
			}}},
	{row: "A46", name: "ServiceNow (JWT)", life: hour,
		calls: one("https://acme.service-now.example/oauth_token.do", facts{body: grantForm(jwtBearer, form{"client_id": clientID, "client_secret": secret, "assertion": assertion{alg: "RS256", kid: "key-1", typ: true, iss: clientID, sub: user, aud: clientID, life: 5 * time.Minute, jti: true}.is()})}, oauth),
		api:   on("https://acme.service-now.example/api/now", asBearer)},
	{row: "A47", name: "Setmore", life: hour,
		calls: get(one("https://developer.setmore.example/api/v1/o/oauth2/token?refreshToken="+q(secret), facts{}, `{"data":{"token":{"access_token":"$token","expires_in":$life}}}`)),
		api:   on("https://developer.setmore.example/api/v1", asBearer)},
	{row: "A48", name: "SharePoint Online (v1)", life: hour,
		calls: one("https://login.microsoft.example/acme/oauth2/token", facts{body: cc(form{"client_id": clientID, "resource": "https://acme.sharepoint.example", "client_assertion_type": assertionType, "client_assertion": readyJWT})}, oauth, `{"access_token":"$token","expires_in":"$life"}`),
		api:   on("https://acme.sharepoint.example/_api", asBearer)},
	{row: "A49", name: "ShopVox",
		calls: []call{{name: "login", url: "https://api.shopvox.example/v1/sessions", facts: facts{body: J{"user": user, "password": password}},
			to: "login", gives: []string{"token", "account"}, answers: said(`{"authToken":"$token","accountID":"$account"}`, `{"authToken":"$token","accountID":$account}`)}},
		api: on("https://api.shopvox.example/v1", facts{query: m{"authToken": "$token", "account_id": "$account"}})},
	{row: "A50", name: "ShopWorks", life: hour,
		calls: one("https://shopworks.acme.example/signin", facts{body: J{"username": user, "password": password}}, `{"id_token":"$token"}`),
		api:   on("https://shopworks.acme.example/api", header("Authorization", "$token"))},
	{row: "A51", name: "Tableau (PAT)", life: 177*hour + 5*time.Minute + 38*second, calls: tableauLogin("$hms"), api: tableauAPI},
	{row: "A51", name: "Tableau (PAT), if days, hours and minutes are meant", life: 7*day + 9*hour + 5*time.Minute, calls: tableauLogin("$dhm"), api: tableauAPI},
	{row: "A52", name: "Tailscale", life: hour,
		calls: one("https://api.tailscale.example/api/v2/oauth/token", facts{body: form{"client_id": clientID, "client_secret": secret}}, oauth),
		api:   on("https://api.tailscale.example/api/v2", asBearer)},
	{row: "A53", name: "Timify", life: hour,
		calls: []call{
			{name: "login", url: "https://api.timify.example/v1/auth/token", facts: facts{body: J{"appid": clientID, "appsecret": secret}},
				to: "login", gives: []string{"token", "refresh"}, answers: said(`{"accessToken":"$token","expires":$life,"refreshToken":"$refresh"}`)},
			{name: "refresh", renewal: true, url: "https://api.timify.example/v1/auth/refresh", facts: facts{body: J{"refreshtoken": "$refresh"}}, from: "login", spends: true,
				to: "login", gives: []string{"token", "refresh"}, answers: said(`{"accessToken":"$token","expires":$life,"refreshToken":"$refresh"}`)},
		},
		api: on("https://api.timify.example/v1", header("Authorization", "$token"))},
	{row: "A54", name: "Toast", life: hour,
		calls: one("https://ws-api.toasttab.example/authentication/v1/authentication/login", facts{body: J{"clientId": clientID, "clientSecret": secret, "userAccessType": "TOAST_MACHINE_CLIENT"}}, `{"token":{"accessToken":"$token","expiresIn":$life}}`),
		api:   on("https://ws-api.toasttab.example", header("Authorization", bearer("$token"), "Toast-Restaurant-External-Id", "r-17"))},
	{row: "A55", name: "Tripletex", life: 5 * day,
		calls: one("https://tripletex.example/v2/token/session/:create", facts{body: J{"consumerToken": apiKey, "employeeToken": patToken, "expirationDate": "$today7"}}, `{"value":{"token":"$token"}}`),
		api:   on("https://tripletex.example/v2", header("Authorization", basic("17:$token")))},
	{row: "A56", name: "UKG Pro WFM (ROPC)", life: hour,
		calls: one("https://welcome-us.ukg.example/oauth/token", facts{body: J{"grant_type": "http://auth0.com/oauth/grant-type/password-realm", "audience": "https://wfm.ukgapis.example", "realm": "acme", "client_id": clientID, "client_secret": secret, "username": user, "password": password}}, oauth),
		api:   on("https://acme.mykronos.example/api/v1", asBearer)},
	{row: "A57", name: "Valley", life: hour,
		calls: []call{
			{name: "login", url: "https://api.valley.example/auth/login", facts: facts{body: J{"email": user, "password": password}},
				to: "login", gives: []string{"token", "refresh"}, answers: said(`{"access_token":"$token","expires_in":$life,"refresh_token":"$refresh"}`)},
			{name: "refresh", renewal: true, url: "https://api.valley.example/auth/refresh", facts: facts{body: J{"refresh_token": "$refresh"}}, from: "login", spends: true,
				to: "login", gives: []string{"token", "refresh"}, answers: said(`{"access_token":"$token","expires_in":$life,"refresh_token":"$refresh"}`)},
		},
		api: on("https://api.valley.example", asBearer)},
	{row: "A58", name: "Veeva Vault",
		calls: []call{{name: "login", url: "https://acme.veevavault.example/api/v25.1/auth", facts: facts{body: form{"username": user, "password": password}},
			to: "login", gives: []string{"token"}, answers: said(`{"responseStatus":"SUCCESS","sessionId":"$token"}`), wrong: answer{status: 200, body: vaultWrong}}},
		api: vaultAPI},
	{row: "A59", name: "Veeva Vault (OAuth)",
		calls: []call{
			{name: "oauth", url: "https://idp.example/oauth2/token", facts: header("Authorization", basicClient(clientID, secret)).with(cc(form{"scope": "vault"})), to: "oauth", gives: []string{"idp"}, answers: said(`{"access_token":"$idp"}`)},
			{name: "login", url: "https://login.veevavault.example/auth/oauth/session/profile-1", facts: header("Authorization", bearer("$idp")).with(form{"vaultDNS": "acme.veevavault.example", "client_id": "app-1"}),
				from: "oauth", to: "login", gives: []string{"token"}, answers: said(`{"responseStatus":"SUCCESS","sessionId":"$token"}`),
				dead: answer{status: 200, body: vaultWrong}, wrong: answer{status: 200, body: vaultWrong}},
		},
		api: vaultAPI},
	{row: "A60", name: "Workday Adaptive Planning",
		calls: []call{
			{name: "oauth", url: "https://wd5.workday.example/ccx/oauth2/acme/token", facts: facts{body: grantForm(jwtBearer, form{"assertion": assertion{alg: "RS256", typ: true, iss: "app-1", sub: user, aud: "wd", life: 5 * time.Minute}.is()})}, to: "oauth", gives: []string{"wd"}, answers: said(`{"access_token":"$wd"}`)},
			{name: "login", method: "GET", url: "https://login.adaptive.example/token", facts: header("Authorization", bearer("$wd")), from: "oauth", to: "login", gives: []string{"token"}, answers: said(`{"adaptiveAPIAccessToken":"$token"}`)},
		},
		api: on("https://api.adaptiveplanning.example/api", asBearer)},
	{row: "A61", name: "Workday (client credentials)", life: hour,
		calls: one("https://wd5.workday.example/oauth2/v1/token", header("Authorization", scheme64("ID", clientID+":"+secret, false)).with(cc(form{"tenant_alias": "acme"})), oauth),
		api:   on("https://wd5.workday.example/api", asBearer)},
	{row: "A62", name: "Workday (refresh token)", life: hour,
		calls: one("https://wd5.workday.example/ccx/oauth2/acme/token", header("Authorization", basicClient(clientID, secret)).with(grantForm("refresh_token", form{"refresh_token": patToken})), bareOAuth),
		api:   on("https://wd5.workday.example/ccx/api/v1/acme", asBearer)},
	{row: "A63", name: "Yotpo",
		calls: one("https://api.yotpo.example/core/v3/stores/shop-1/access_tokens", facts{body: J{"secret": secret}}, bareOAuth),
		api:   on("https://api.yotpo.example/core/v3/stores/shop-1", header("X-Yotpo-Token", "$token"))},
}

func tableauLogin(life string) []call {
	return one("https://tableau.example/api/3.27/auth/signin", facts{body: J{"credentials": J{"personalAccessTokenName": "ci", "personalAccessTokenSecret": patToken, "site": J{"contentUrl": "acme"}}}},
		`{"credentials":{"token":"$token","estimatedTimeToExpiration":"`+life+`"}}`)
}

var tableauAPI = api{base: "https://tableau.example/api/3.27", facts: header("X-Tableau-Auth", "$token"), refusals: []answer{{status: 401}, {status: 403}}}

const vaultWrong = `{"responseStatus":"FAILURE","errorType":"AUTHENTICATION_FAILED","errors":[{"type":"USERNAME_OR_PASSWORD_INCORRECT","message":"Authentication failed"}]}`

// A dead session is told in the body; the status isn't known.
var vaultAPI = api{base: "https://acme.veevavault.example/api/v25.1", facts: header("Authorization", "$token"), ok: `{"responseStatus":"SUCCESS"}`,
	refusals: []answer{
		{body: `{"responseStatus":"FAILURE","errors":[{"type":"INVALID_SESSION_ID","message":"Invalid or expired session ID."}]}`},
		{status: 401, body: `{"responseStatus":"FAILURE","errors":[{"type":"INVALID_SESSION_ID","message":"Invalid or expired session ID."}]}`},
	},
	requests: append([]request{{method: "GET", path: "/users", other: `{"responseStatus":"FAILURE","errors":[{"type":"INSUFFICIENT_ACCESS","message":"No."}]}`}}, things...),
}

var dayforce = one("https://dfid.dayforce.example/connect/token", facts{body: grantForm("password", form{"companyId": "acme", "username": user, "password": password, "client_id": "Dayforce.HCMAnywhere.Client"})}, oauth)

func dataCloud(once bool) []call {
	return []call{
		{name: "login", url: "https://login.salesforce.example/services/oauth2/token", facts: facts{body: grantForm(jwtBearer, form{"assertion": readyJWT})},
			to: "login", gives: []string{"first", "instance"}, answers: said(`{"access_token":"$first","instance_url":"https://$instance.my.salesforce.example"}`)},
		{name: "exchange", url: "https://$instance.my.salesforce.example/services/a360/token", once: once,
			facts: facts{body: grantForm("urn:salesforce:grant-type:external:cdp", form{"subject_token": "$first", "subject_token_type": "urn:ietf:params:oauth:token-type:access_token"})},
			from:  "login", to: "exchange", gives: []string{"token", "endpoint"},
			answers: said(`{"access_token":"$token","instance_url":"$endpoint.c360a.salesforce.example","expires_in":$life}`, `{"access_token":"$token","instance_url":"https://$endpoint.c360a.salesforce.example","expires_in":$life}`)},
	}
}

const intacctRead = `<request><control><senderid>acme</senderid></control><operation><authentication></authentication><content/></operation></request>`

var intacctLogin = []call{{name: "login", url: "https://api.intacct.example/ia/xml/xmlgw.phtml", facts: facts{body: checked(intacctBody)},
	to: "login", gives: []string{"token", "node"}, answers: said(`<response><operation><authentication><sessiontimeout>$expires</sessiontimeout></authentication><result><data><api><sessionid>$token</sessionid><endpoint>https://$node.intacct.example/ia/xml/xmlgw.phtml</endpoint></api></data></result></operation></response>`)}}

func intacctBody(at *at) error {
	var got struct {
		XMLName xml.Name `xml:"request"`
		Control struct {
			SenderID  string `xml:"senderid"`
			Password  string `xml:"password"`
			ControlID string `xml:"controlid"`
		} `xml:"control"`
		Login struct {
			UserID    string `xml:"userid"`
			CompanyID string `xml:"companyid"`
			Password  string `xml:"password"`
		} `xml:"operation>authentication>login"`
		Function *struct{} `xml:"operation>content>function>getAPISession"`
	}
	if !strings.HasPrefix(at.r.Header.Get("Content-Type"), "text/xml") {
		return errors.New("no XML by its type")
	}
	if err := xml.Unmarshal(at.body, &got); err != nil {
		return err
	}
	if got.Control.SenderID != "acme" || got.Control.Password != secret || got.Login.UserID != user || got.Login.CompanyID != "ACME" || got.Login.Password != password || got.Function == nil {
		return errValue
	}
	return nowAs(time.RFC3339)(got.Control.ControlID, at)
}

var samlSigned = regexp.MustCompile(`(?s)^(<saml2:Assertion [^>]*>.*?)<ds:Signature [^>]*>(<ds:SignedInfo .*</ds:SignedInfo>)<ds:SignatureValue>([^<]*)</ds:SignatureValue></ds:Signature>(.*)$`)

// samlAssertion is signed over itself without the signature. Both sides write canonical
// XML, so that there is nothing to canonicalize.
var samlAssertion check = func(got string, at *at) error {
	text, err := base64.StdEncoding.DecodeString(got)
	if err != nil {
		return err
	}
	part := samlSigned.FindSubmatch(text)
	if part == nil {
		return errors.New("no signed assertion")
	}
	digest := sha256.Sum256(append(bytes.Clone(part[1]), part[4]...))
	if !bytes.Contains(part[2], []byte("<ds:DigestValue>"+base64.StdEncoding.EncodeToString(digest[:])+"</ds:DigestValue>")) {
		return errors.New("SAML: the digest is wrong")
	}
	sig, err := base64.StdEncoding.DecodeString(string(part[3]))
	sum := sha256.Sum256(part[2])
	if err != nil || rsa.VerifyPKCS1v15(&rsaKey.PublicKey, crypto.SHA256, sum[:], sig) != nil {
		return errors.New("SAML: the signature is wrong")
	}
	var a struct {
		Issuer    string `xml:"Issuer"`
		NameID    string `xml:"Subject>NameID"`
		Confirmed struct {
			Recipient string    `xml:"Recipient,attr"`
			Until     time.Time `xml:"NotOnOrAfter,attr"`
		} `xml:"Subject>SubjectConfirmation>SubjectConfirmationData"`
		Audience string `xml:"Conditions>AudienceRestriction>Audience"`
		Authn    struct {
			Index string `xml:"SessionIndex,attr"`
		} `xml:"AuthnStatement"`
		Key string `xml:"AttributeStatement>Attribute>AttributeValue"`
	}
	if err := xml.Unmarshal(text, &a); err != nil {
		return err
	}
	if a.NameID != user || a.Confirmed.Recipient != "https://api.successfactors.example/oauth/token" || !time.Now().Before(a.Confirmed.Until) ||
		a.Audience != "www.successfactors.com" || a.Key != "app-1" || len(a.Authn.Index) < 16 {
		return errValue
	}
	return at.once(a.Authn.Index)
}
