// The programs that log in as the rows of rows_b_test.go say.

package shapes_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	rf "github.com/requestforge/requestforge"
)

func init() { programsA = append(programsA, programsAHooks...) }

var programsB = []func() program{
	func() program {
		return program{row: "B1", login: []rf.Step{
			{Name: "root", Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://bmc.example/redfish/v1/", TokenField: "Links.Sessions.@odata.id"}},
			{Name: "login", DependsOn: []string{"root"}, Fetcher: &rf.HTTPFetcher{Origins: []string{"https://bmc.example"}, JSON: m{"UserName": user, "Password": password}, TokenHeader: "X-Auth-Token", KeepHeaders: []string{"Location"},
				URLFrom: func(in rf.Input) (string, error) { return "https://bmc.example" + in.Parents["root"].AccessToken, nil }}},
		}, api: rf.Config{BaseURL: "https://bmc.example/redfish/v1", Attach: bareIn("X-Auth-Token")}}
	},
	program1("B2", 0, &rf.HTTPFetcher{URL: "https://catalyst.example/dna/system/api/v1/auth/token", Header: headers("Authorization", basicOf(user+":"+password)), TokenField: "Token"}, rf.Config{BaseURL: "https://catalyst.example/dna/intent/api/v1", Attach: bareIn("X-Auth-Token")}),
	func() program {
		return program{row: "B3", again: []string{"login", "lifetime"}, login: []rf.Step{
			{Name: "login", Fetcher: &rf.HTTPFetcher{URL: "https://nd.example/login", JSON: m{"userName": user, "userPasswd": password, "domain": "local"}, TokenField: "token", Cookies: true}},
			{Name: "lifetime", DependsOn: []string{"login"}, Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://nd.example/nexus/api/config", HeaderFrom: map[string]string{"Authorization": "login"}, Cookies: true,
				Read: func(in rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
					var ans struct {
						Config struct {
							Seconds int `json:"jwt_session_timeout_sec"`
						}
					}
					err := json.Unmarshal(body, &ans)
					return handOn(in.Parents["login"], time.Duration(ans.Config.Seconds)*second/2), err
				}}},
		}, api: rf.Config{BaseURL: "https://nd.example/nexus/api"}}
	},
	knowing(func() program {
		version := headers("X-API-Version", "6800")
		return program{row: "B4", again: []string{"login", "idle"}, ahead: []string{"idle"}, login: []rf.Step{
			{Name: "login", Fetcher: &rf.HTTPFetcher{URL: "https://oneview.example/rest/login-sessions", Header: version, JSON: m{"userName": user, "password": password, "authLoginDomain": "LOCAL", "loginMsgAck": true}, TokenField: "sessionID"}},
			{Name: "idle", DependsOn: []string{"login"}, Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://oneview.example/rest/sessions/idle-timeout", Header: version, HeaderFrom: map[string]string{"auth": "login", "Session-ID": "login"},
				Read: func(in rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
					var ans struct{ IdleTimeout int }
					err := json.Unmarshal(body, &ans)
					return handOn(in.Parents["login"], time.Duration(ans.IdleTimeout)*time.Millisecond), err
				},
				Classify: parentRefusedBy(404)}},
		}, api: rf.Config{BaseURL: "https://oneview.example/rest", Attach: []rf.Place{{Header: "auth"}, {Header: "X-API-Version", Text: "6800"}}}}
	}),
	program1("B5", 0, &rf.HTTPFetcher{URL: "https://apstra.example/api/aaa/login", JSON: m{"username": user, "password": password}, TokenField: "token"}, rf.Config{BaseURL: "https://apstra.example/api", Attach: bareIn("Authtoken")}),
	knowing(func() program {
		return program{row: "B6", again: []string{"login", "extend"}, ahead: []string{"extend"}, login: []rf.Step{
			{Name: "login", Fetcher: &rf.HTTPFetcher{URL: "https://bigip.example/mgmt/shared/authn/login", JSON: m{"username": user, "password": password, "loginProviderName": "tmos"}, TokenField: "token.token"}},
			{Name: "extend", DependsOn: []string{"login"}, Fetcher: &rf.HTTPFetcher{Method: "PATCH", Origins: []string{"https://bigip.example"}, HeaderFrom: map[string]string{"X-F5-Auth-Token": "login"}, JSON: m{"timeout": 3600},
				URLFrom: func(in rf.Input) (string, error) {
					return "https://bigip.example/mgmt/shared/authz/tokens/" + url.PathEscape(in.Parents["login"].AccessToken), nil
				},
				Read: func(in rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
					var ans struct{ Timeout int }
					err := json.Unmarshal(body, &ans)
					return handOn(in.Parents["login"], time.Duration(ans.Timeout)*second), err
				}}},
		}, api: rf.Config{BaseURL: "https://bigip.example/mgmt/tm", Attach: bareIn("X-F5-Auth-Token")}}
	}),
	knowing(program1("B7", 0, &rf.HTTPFetcher{URL: "https://pi.hole.example/api/auth", JSON: m{"password": password}, TokenField: "session.sid", ExpiresInField: "session.validity"}, rf.Config{BaseURL: "https://pi.hole.example/api", Attach: bareIn("X-FTL-SID")})),
	vra("terraform-provider-vra, 8.x"),
	vra("terraform-provider-vra, 9.x"),
	func() program {
		return program{row: "B9", login: []rf.Step{
			{Name: "versions", Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://vcd.example/api/versions", Read: func(_ rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
				var ans struct {
					Versions []struct{ Version, LoginUrl string } `xml:"VersionInfo"`
				}
				if err := xml.Unmarshal(body, &ans); err != nil {
					return nil, err
				}
				for _, v := range ans.Versions {
					if v.Version == "39.1" {
						return &rf.Token{AccessToken: v.LoginUrl}, nil
					}
				}
				return nil, errors.New("the server has no version 39.1")
			}}},
			{Name: "login", DependsOn: []string{"versions"}, Fetcher: &rf.HTTPFetcher{Origins: []string{"https://vcd.example"}, Header: headers("Authorization", basicOf("ada@acme:"+password), "Accept", acos), TokenHeader: "X-Vmware-Vcloud-Access-Token",
				URLFrom: func(in rf.Input) (string, error) { return in.Parents["versions"].AccessToken, nil }}},
		}, api: rf.Config{BaseURL: "https://vcd.example/api", Attach: []rf.Place{{Header: "Authorization", Scheme: "bearer"}, {Header: "X-Vmware-Vcloud-Access-Token"}, {Header: "X-Vmware-Vcloud-Token-Type", Text: "Bearer"}, {Header: "Accept", Text: acos}}}}
	},
	knowing(func() program {
		read := func(_ rf.Input, resp *http.Response, body []byte) (*rf.Token, error) {
			if len(body) > 0 {
				return nil, errors.New("a body, which means wrong credentials")
			}
			h := resp.Header
			return &rf.Token{AccessToken: h.Get("X-auth-access-token"), RefreshToken: h.Get("X-auth-refresh-token"), Extra: m{"domain": h.Get("DOMAIN_UUID")}}, nil
		}
		return program{row: "B10", again: []string{"refresh"}, late: []string{"refresh"}, login: []rf.Step{{Name: "login", TTL: 30 * time.Minute,
			Fetcher: &rf.HTTPFetcher{URL: "https://fmc.example/api/fmc_platform/v1/auth/generatetoken", Header: headers("Authorization", basicOf(user+":"+password)), Read: read},
			Refresh: &rf.HTTPFetcher{URL: "https://fmc.example/api/fmc_platform/v1/auth/refreshtoken", Read: read, Prepare: func(req *http.Request, in rf.Input) error {
				req.Header.Set("X-auth-access-token", in.Previous.AccessToken)
				req.Header.Set("X-auth-refresh-token", in.Previous.RefreshToken)
				return nil
			}},
		}}, api: rf.Config{BaseURL: "https://fmc.example/api/fmc_config/v1/domain", Attach: bareIn("X-auth-access-token"), BaseURLFrom: func(tok *rf.Token) (string, error) {
			return "https://fmc.example/api/fmc_config/v1/domain/" + url.PathEscape(tok.Value("domain")), nil
		}}}
	}),
	govmomi("govmomi (REST), /rest", "https://vcenter.example/rest/com/vmware/cis/session", "value", "https://vcenter.example/rest"),
	govmomi("govmomi (REST), /api", "https://vcenter.example/api/session", ".", "https://vcenter.example/api"),
	scaleioProgram("goscaleio, version 3"),
	scaleioProgram("goscaleio, version 4"),
	knowing(func() program {
		login := "imdata.0.aaaLogin.attributes."
		renewed := "imdata.0.aaaRefresh.attributes."
		return program{row: "B13", ahead: []string{"refresh"}, login: []rf.Step{{Name: "login",
			Fetcher: &rf.HTTPFetcher{URL: "https://apic.example/api/aaaLogin.json", JSON: m{"aaaUser": m{"attributes": m{"name": user, "pwd": password}}}, TokenField: login + "token", RefreshField: login + "token", ExpiresInField: login + "refreshTimeoutSeconds"},
			Refresh: &rf.HTTPFetcher{Method: "GET", URL: "https://apic.example/api/aaaRefresh.json", TokenField: renewed + "token", RefreshField: renewed + "token", ExpiresInField: renewed + "refreshTimeoutSeconds", Classify: refreshRefusedBy(403),
				Prepare: func(req *http.Request, in rf.Input) error {
					req.AddCookie(&http.Cookie{Name: "APIC-Cookie", Value: in.Previous.AccessToken})
					return nil
				}},
		}}, api: rf.Config{BaseURL: "https://apic.example/api", Attach: []rf.Place{{Cookie: "APIC-Cookie"}}, RefusedStatus: []int{403}}}
	}),
	func() program {
		return program{row: "B14", login: []rf.Step{
			{Name: "token", Fetcher: &rf.HTTPFetcher{URL: "https://pugo.example/api/login", JSON: m{"username": user, "password": password}, TokenField: "api_token"}},
			{Name: "session", DependsOn: []string{"token"}, Fetcher: &rf.HTTPFetcher{URL: "https://pugo.example/api/session", TokenCookie: "session",
				BodyFrom: func(in rf.Input) (any, error) { return m{"api_token": in.Parents["token"].AccessToken}, nil }}},
		}, api: rf.Config{BaseURL: "https://pugo.example/api", Attach: []rf.Place{{Cookie: "session"}}}}
	},
	func() program {
		return program{row: "B15", shape: "adc-nitro-go, as the vendor has it", login: []rf.Step{{Name: "login", Fetcher: nitro}}, api: rf.Config{BaseURL: "https://adc.example/nitro/v1/config", Attach: []rf.Place{{Cookie: "NITRO_AUTH_TOKEN"}}}}
	},
	func() program {
		return program{row: "B15", shape: "adc-nitro-go, as the client has it", login: []rf.Step{{Name: "login", Fetcher: nitro}}, api: rf.Config{BaseURL: "https://adc.example/nitro/v1/config", Attach: []rf.Place{}, Prepare: func(out *http.Request, tok *rf.Token) error {
			out.Header.Set("Set-Cookie", "NITRO_AUTH_TOKEN="+tok.AccessToken)
			return nil
		}}}
	},
	program1("B16", 0, &rf.HTTPFetcher{URL: "https://panos.example/api/", Form: vs{"type": {"keygen"}, "user": {user}, "password": {password}}, Read: func(_ rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
		var ans struct {
			Key string `xml:"result>key"`
		}
		err := xml.Unmarshal(body, &ans)
		return &rf.Token{AccessToken: ans.Key}, err
	}}, rf.Config{BaseURL: "https://panos.example/api/", Attach: bareIn("X-PAN-KEY"), Refused: func(resp *http.Response) bool {
		var ans struct {
			Code string `xml:"code,attr"`
		}
		return xml.Unmarshal(bodyOf(resp), &ans) == nil && (ans.Code == "16" || ans.Code == "22")
	}}),
	knowing(func() program {
		const ticket = "https://pve.example:8006/api2/json/access/ticket"
		return program{row: "B17", ahead: []string{"renewal"}, login: []rf.Step{{Name: "login", TTL: 2 * hour,
			Fetcher: &rf.HTTPFetcher{URL: ticket, TokenField: "data.ticket", RefreshField: "data.ticket", BodyFrom: func(rf.Input) (any, error) {
				return m{"username": user, "password": password, "otp": otpAt(time.Now()), "realm": "pam"}, nil
			}},
			Refresh: &rf.HTTPFetcher{URL: ticket, TokenField: "data.ticket", RefreshField: "data.ticket", BodyFrom: func(in rf.Input) (any, error) {
				return m{"username": user, "password": in.Previous.AccessToken, "realm": "pam"}, nil
			}},
		}}, api: rf.Config{BaseURL: "https://pve.example:8006/api2/json", Attach: []rf.Place{{Cookie: "PVEAuthCookie"}, {Header: "CSRFPreventionToken", Value: "data.CSRFPreventionToken"}}, RefusedStatus: []int{403}}}
	}),
	unifiProgram("go-unifi, old paths"),
	unifiProgram("go-unifi, new paths"),
	program1("B19", 0, &rf.HTTPFetcher{Method: "GET", URL: "https://unity.example/api/types/loginSessionInfo", Header: headers("Authorization", basicOf(user+":"+password), "X-EMC-REST-CLIENT", "true"), TokenHeader: "EMC-CSRF-TOKEN", Cookies: true},
		rf.Config{BaseURL: "https://unity.example/api", Attach: []rf.Place{{Header: "X-EMC-REST-CLIENT", Text: "true"}}, Prepare: func(out *http.Request, tok *rf.Token) error {
			if out.Method != http.MethodGet {
				out.Header.Set("EMC-CSRF-TOKEN", tok.AccessToken)
			}
			return nil
		}}),
	func() program {
		var latest newest
		return program1("B20", 0, &rf.HTTPFetcher{Method: "GET", URL: "https://powerstore.example/api/rest/login_session", Header: headers("Authorization", basicOf(user+":"+password)), TokenCookie: "auth_cookie", KeepHeaders: []string{"DELL-EMC-TOKEN"}},
			rf.Config{BaseURL: "https://powerstore.example/api/rest", RefusedStatus: []int{403},
				Attach: []rf.Place{{Cookie: "auth_cookie"}, {Header: "Authorization", Scheme: "Basic", Text: base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}},
				Learn:  latest.learn("DELL-EMC-TOKEN"), Prepare: latest.put("DELL-EMC-TOKEN")})()
	},
	func() program {
		return program{row: "B21", login: []rf.Step{
			{Name: "login", Fetcher: &rf.HTTPFetcher{URL: "https://vmanage.example/j_security_check", Form: vs{"j_username": {user}, "j_password": {password}}, TokenCookie: "JSESSIONID", Cookies: true, Classify: func(resp *http.Response, body []byte) *rf.AuthError {
				if resp.StatusCode != 200 || len(body) == 0 {
					return nil
				}
				err := rf.NewAuthError(resp, body, errors.New("a page instead of nothing: wrong credentials"))
				err.Permanent = true
				return err
			}}},
			{Name: "xsrf", DependsOn: []string{"login"}, Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://vmanage.example/dataservice/client/token", TokenField: ".", Cookies: true}},
		}, api: rf.Config{BaseURL: "https://vmanage.example/dataservice", Attach: bareIn("X-XSRF-TOKEN")}}
	},
	synologyProgram("go-synology"),
	synologyProgram("go-synology, a second call with a token"),
	program1("B23", 0, &rf.HTTPFetcher{URL: "https://avi.example/login", JSON: m{"username": user, "password": password}, TokenCookie: "sessionid", Cookies: true}, rf.Config{BaseURL: "https://avi.example/api",
		Attach: []rf.Place{{Header: "Referer", Text: "https://avi.example/api"}, {Header: "X-Avi-Version", Text: "31.1.1"}, {Header: "X-Avi-Tenant", Text: "admin"}},
		Prepare: func(out *http.Request, _ *rf.Token) error {
			c, err := out.Cookie("csrftoken")
			if err == nil {
				out.Header.Set("X-CSRFToken", c.Value)
			}
			return err
		},
		Retry: rf.RetryPolicy{RetryMax: 1, Undone: func(_ *http.Request, resp *http.Response, _ error) bool {
			return resp != nil && resp.StatusCode == 419
		}}}),
	program1("B24", 0, &rf.HTTPFetcher{URL: "https://fmg.example/jsonrpc", JSON: m{"id": 1, "method": "exec", "params": []any{m{"url": "/sys/login/user", "data": []any{m{"user": user, "passwd": password}}}}}, TokenField: "session"},
		rf.Config{BaseURL: "https://fmg.example/jsonrpc", Attach: []rf.Place{}, Prepare: inJSON("session"), Refused: func(resp *http.Response) bool {
			var ans struct {
				Result []struct{ Status struct{ Code int } }
			}
			return json.Unmarshal(bodyOf(resp), &ans) == nil && len(ans.Result) > 0 && ans.Result[0].Status.Code == -11
		}}),
	program1("B25", 0, &rf.HTTPFetcher{URL: "https://zabbix.example/api_jsonrpc.php", JSON: m{"jsonrpc": "2.0", "method": "user.login", "id": 1, "params": m{"user": user, "password": password}}, TokenField: "result"},
		rf.Config{BaseURL: "https://zabbix.example/api_jsonrpc.php", Attach: []rf.Place{}, Prepare: inJSON("auth"), Refused: func(resp *http.Response) bool {
			var ans struct {
				Error struct {
					Code int
					Data string
				}
			}
			return json.Unmarshal(bodyOf(resp), &ans) == nil && ans.Error.Code == -32602 && strings.Contains(ans.Error.Data, "re-login")
		}}),
	aviatrix,
	program1("B27", 0, &rf.HTTPFetcher{URL: "https://login.salesforce.example/services/Soap/u/62.0", Header: headers("Content-Type", "text/xml; charset=UTF-8", "SOAPAction", "login"),
		BodyFrom: func(rf.Input) (any, error) {
			var b bytes.Buffer
			b.WriteString(`<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:u="urn:partner.soap.sforce.com"><soapenv:Body><u:login>`)
			element(&b, "u:username", user)
			element(&b, "u:password", password+patToken)
			b.WriteString(`</u:login></soapenv:Body></soapenv:Envelope>`)
			return b.Bytes(), nil
		},
		Read: func(_ rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
			var ans struct {
				Session string `xml:"Body>loginResponse>result>sessionId"`
				Server  string `xml:"Body>loginResponse>result>serverUrl"`
			}
			err := xml.Unmarshal(body, &ans)
			return &rf.Token{AccessToken: ans.Session, Extra: m{"server": ans.Server}}, err
		}}, rf.Config{BaseURL: "https://acme.my.salesforce.example/services/data/v62.0", Origins: []string{"https://*.my.salesforce.example"}, BaseURLFrom: func(tok *rf.Token) (string, error) {
		u, err := url.Parse(tok.Value("server"))
		if err != nil {
			return "", err
		}
		return "https://" + u.Host + "/services/data/v62.0", nil
	}}),
}

// handOn is a parent's token, whose life has become known.
func handOn(parent *rf.Token, life time.Duration) *rf.Token {
	return &rf.Token{AccessToken: parent.AccessToken, TokenType: parent.TokenType, Extra: parent.Extra, Expiry: time.Now().Add(life)}
}

func parentRefusedBy(status int) func(*http.Response, []byte) *rf.AuthError {
	return func(resp *http.Response, body []byte) *rf.AuthError {
		if resp.StatusCode != status {
			return nil
		}
		err := rf.NewAuthError(resp, body, errors.New("the session is over"))
		err.ParentRefused, err.Permanent = true, false
		return err
	}
}

func refreshRefusedBy(status int) func(*http.Response, []byte) *rf.AuthError {
	return func(resp *http.Response, body []byte) *rf.AuthError {
		if resp.StatusCode != status {
			return nil
		}
		err := rf.NewAuthError(resp, body, errors.New("the old token refreshes nothing"))
		err.RefreshRefused = true
		return err
	}
}

// ownRefused says that a 401 refuses what the program has sent, not what an earlier step has
// told. So a wrong password is sent once.
func ownRefused(resp *http.Response, body []byte) *rf.AuthError {
	if resp.StatusCode != http.StatusUnauthorized {
		return nil
	}
	err := rf.NewAuthError(resp, body, errors.New("wrong credentials"))
	err.Permanent = true
	return err
}

func vra(shape string) func() program {
	return func() program {
		old := func(in rf.Input) bool { return strings.HasPrefix(in.Parents["version"].AccessToken, "8.") }
		return program{row: "B8", shape: shape, login: []rf.Step{
			{Name: "version", Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://vra.example/config.json", TokenField: "version"}},
			{Name: "login", DependsOn: []string{"version"}, Fetcher: &rf.HTTPFetcher{Origins: []string{"https://vra.example"},
				URLFrom: func(in rf.Input) (string, error) {
					if old(in) {
						return "https://vra.example/iaas/api/login", nil
					}
					return "https://vra.example/oauth/token", nil
				},
				BodyFrom: func(in rf.Input) (any, error) {
					if old(in) {
						return m{"refreshToken": patToken}, nil
					}
					return vs{"grant_type": {"refresh_token"}, "refresh_token": {patToken}}, nil
				},
				Classify: ownRefused,
				Read: func(_ rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
					var ans struct {
						Old string `json:"token"`
						New string `json:"access_token"`
					}
					err := json.Unmarshal(body, &ans)
					return &rf.Token{AccessToken: ans.Old + ans.New}, err
				}}},
		}, api: rf.Config{BaseURL: "https://vra.example/iaas/api"}}
	}
}

func govmomi(shape, url, field, base string) func() program {
	return func() program {
		p := program1("B11", 0, &rf.HTTPFetcher{URL: url, Header: headers("Authorization", basicOf(user+":"+password), "vmware-use-header-authn", "true"), TokenField: field}, rf.Config{BaseURL: base, Attach: bareIn("vmware-api-session-id")})()
		p.shape = shape
		return p
	}
}

func scaleioProgram(shape string) func() program {
	return func() program {
		return program{row: "B12", shape: shape, again: []string{"login", "version"}, login: []rf.Step{
			{Name: "login", Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://scaleio.example/api/login", Header: headers("Authorization", basicOf(user+":"+password)), TokenField: "."}},
			{Name: "version", DependsOn: []string{"login"}, Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://scaleio.example/api/version",
				Prepare: func(req *http.Request, in rf.Input) error {
					req.SetBasicAuth("", in.Parents["login"].AccessToken)
					return nil
				},
				Read: func(in rf.Input, _ *http.Response, body []byte) (*rf.Token, error) {
					var version string
					err := json.Unmarshal(body, &version)
					tok := &rf.Token{AccessToken: in.Parents["login"].AccessToken, Extra: m{"version": version}}
					return tok, err
				}}},
		}, api: rf.Config{BaseURL: "https://scaleio.example/api", Attach: []rf.Place{}, Prepare: func(out *http.Request, tok *rf.Token) error {
			if major, _ := strconv.Atoi(strings.Split(tok.Value("version"), ".")[0]); major < 4 {
				out.SetBasicAuth("", tok.AccessToken)
			} else {
				out.Header.Set("Authorization", "Bearer "+tok.AccessToken)
			}
			return nil
		}}}
	}
}

var nitro = &rf.HTTPFetcher{URL: "https://adc.example/nitro/v1/config/login", JSON: m{"login": m{"username": user, "password": password, "timeout": 900}}, TokenField: "sessionid"}

func lastResponse(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// newest is the newest CSRF value of each session, which any response may replace.
type newest struct {
	mu     sync.Mutex
	values map[string]string // by the access token; a program of many users would drop old ones
}

func (n *newest) learn(header string) func(*http.Response, *rf.Token) bool {
	return func(resp *http.Response, tok *rf.Token) bool {
		if value := resp.Header.Get(header); value != "" {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.values = map[string]string{tok.AccessToken: value}
		}
		return false
	}
}

func (n *newest) put(header string) func(*http.Request, *rf.Token) error {
	return func(out *http.Request, tok *rf.Token) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		value, ok := n.values[tok.AccessToken]
		if !ok {
			value = tok.Value(header) // of the login
		}
		out.Header.Set(header, value)
		return nil
	}
}

func unifiProgram(shape string) func() program {
	const controller = "https://unifi.example"
	return func() program {
		var latest newest
		paths := func(in rf.Input) (login, base string) {
			if in.Parents["probe"].AccessToken == "200" {
				return controller + "/api/auth/login", controller + "/proxy/network/api"
			}
			return controller + "/api/login", controller + "/api"
		}
		return program{row: "B18", shape: shape, login: []rf.Step{
			{Name: "probe", Fetcher: &rf.HTTPFetcher{Method: "GET", URL: controller, Client: &http.Client{CheckRedirect: lastResponse},
				Read: func(_ rf.Input, resp *http.Response, _ []byte) (*rf.Token, error) {
					return &rf.Token{AccessToken: strconv.Itoa(resp.StatusCode)}, nil
				}}},
			{Name: "login", DependsOn: []string{"probe"}, Fetcher: &rf.HTTPFetcher{Origins: []string{controller}, JSON: m{"username": user, "password": password}, KeepHeaders: []string{csrfSetting},
				URLFrom: func(in rf.Input) (string, error) { login, _ := paths(in); return login, nil },
				Read: func(in rf.Input, resp *http.Response, _ []byte) (*rf.Token, error) {
					_, base := paths(in)
					for _, c := range resp.Cookies() {
						if c.Name == "TOKEN" {
							return &rf.Token{AccessToken: c.Value, Extra: m{"base": base}}, nil
						}
					}
					return nil, errors.New("no cookie TOKEN")
				}}},
		}, api: rf.Config{BaseURL: controller + "/api", BaseURLFrom: func(tok *rf.Token) (string, error) { return tok.Value("base"), nil },
			Attach: []rf.Place{{Cookie: "TOKEN"}}, Learn: latest.learn(csrfSetting), Prepare: latest.put(csrfSetting)}}
	}
}

// A login that may take two calls to one URL is a function of its own.
func synologyProgram(shape string) func() program {
	return func() program {
		login := func(ctx context.Context, _ rf.Input) (*rf.Token, error) {
			client := rf.LoginClient("https://nas.example")
			pass := password
			for range 2 {
				q := url.Values{"api": {"SYNO.API.Auth"}, "method": {"login"}, "version": {"6"}, "account": {user}, "passwd": {pass}, "otp_code": {otpAt(time.Now())}, "format": {"sid"}, "enable_syno_token": {"yes"}, "timezone": {"+00:00"}}
				req, err := http.NewRequestWithContext(ctx, "GET", "https://nas.example/webapi/entry.cgi?"+q.Encode(), nil)
				if err != nil {
					return nil, err
				}
				resp, err := client.Do(req)
				if err != nil {
					return nil, err
				}
				text, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil {
					return nil, err
				}
				var ans struct {
					Data  struct{ Sid, Synotoken, Did string }
					Error struct {
						Code   int
						Errors struct{ Token string }
					}
				}
				if err := json.Unmarshal(text, &ans); err != nil {
					return nil, rf.NewAuthError(resp, text, errors.New("no JSON"))
				}
				switch {
				case ans.Error.Code == 403:
					pass = ans.Error.Errors.Token
					time.Sleep(30 * second) // until the device shows another code
					continue
				case ans.Data.Sid == "":
					err := rf.NewAuthError(resp, text, fmt.Errorf("error %d", ans.Error.Code))
					err.Permanent = true
					return nil, err
				}
				return &rf.Token{AccessToken: ans.Data.Sid, Extra: m{"synotoken": ans.Data.Synotoken, "did": ans.Data.Did}}, nil
			}
			return nil, errors.New("a third call")
		}
		return program{row: "B22", shape: shape, again: synologyAgain[shape], login: []rf.Step{{Name: "login", Timeout: 2 * time.Minute, Fetcher: rf.FetcherFunc(login)}}, api: rf.Config{
			BaseURL: "https://nas.example/webapi/entry.cgi", Attach: []rf.Place{},
			Prepare: func(out *http.Request, tok *rf.Token) error {
				add := url.Values{"_sid": {tok.AccessToken}, "SynoToken": {tok.Value("synotoken")}}
				if out.Method == http.MethodGet {
					out.URL.RawQuery += "&" + add.Encode()
					return nil
				}
				out.Header.Set("X-SYNO-TOKEN", tok.Value("synotoken"))
				out.AddCookie(&http.Cookie{Name: "id", Value: tok.AccessToken})
				out.AddCookie(&http.Cookie{Name: "did", Value: tok.Value("did")})
				return inForm(out, add)
			},
			Refused: func(resp *http.Response) bool {
				var ans struct{ Error struct{ Code int } }
				if json.Unmarshal(bodyOf(resp), &ans) != nil {
					return false
				}
				return ans.Error.Code == 119 || ans.Error.Code == 106 || ans.Error.Code == 107
			},
		}}
	}
}

var synologyAgain = map[string][]string{"go-synology, a second call with a token": {"first", "login"}}

// inJSON puts the token into the JSON body of each request.
func inJSON(member string) func(*http.Request, *rf.Token) error {
	return func(out *http.Request, tok *rf.Token) error {
		var failed error
		err := rewrite(out, func(body []byte) []byte {
			var object map[string]json.RawMessage
			if failed = json.Unmarshal(body, &object); failed != nil {
				return nil
			}
			object[member], failed = json.Marshal(tok.AccessToken)
			body, failed = json.Marshal(object)
			return body
		})
		return errors.Join(err, failed)
	}
}

// inForm puts fields into the form of a request.
func inForm(out *http.Request, add url.Values) error {
	return rewrite(out, func(body []byte) []byte {
		form, _ := url.ParseQuery(string(body))
		maps.Copy(form, add)
		return []byte(form.Encode())
	})
}

func aviatrix() program {
	failed := func(resp *http.Response, body []byte) *rf.AuthError {
		var ans struct {
			Return bool
			Reason string
		}
		if json.Unmarshal(body, &ans) != nil || ans.Return {
			return nil
		}
		err := rf.NewAuthError(resp, body, errors.New("the controller refuses"))
		err.ParentRefused = strings.Contains(ans.Reason, "api token")
		err.Permanent = !err.ParentRefused
		return err
	}
	return program{row: "B26", login: []rf.Step{
		{Name: "key", Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://controller.aviatrix.example/v2/api", TokenField: "results.api_token", Classify: failed,
			Prepare: func(req *http.Request, _ rf.Input) error { // a GET with a form
				text := url.Values{"action": {"get_api_token"}}.Encode()
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				req.ContentLength = int64(len(text))
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
				req.Body, _ = req.GetBody()
				return nil
			}}},
		{Name: "login", DependsOn: []string{"key"}, Fetcher: &rf.HTTPFetcher{URL: "https://controller.aviatrix.example/v2/api", HeaderFrom: map[string]string{"X-Access-Key": "key"}, Form: vs{"action": {"login"}, "username": {user}, "password": {password}}, TokenField: "CID", Classify: failed}},
	}, api: rf.Config{BaseURL: "https://controller.aviatrix.example/v2", Attach: []rf.Place{},
		Prepare: func(out *http.Request, tok *rf.Token) error {
			switch {
			case out.URL.Path != "/v2/api":
				out.Header.Set("Authorization", "cid "+tok.AccessToken)
			case out.Method == http.MethodGet:
				out.URL.RawQuery += "&" + url.Values{"CID": {tok.AccessToken}}.Encode()
			default:
				return inForm(out, url.Values{"CID": {tok.AccessToken}})
			}
			return nil
		},
		Refused: func(resp *http.Response) bool {
			var ans struct{ Reason, Message string }
			return json.Unmarshal(bodyOf(resp), &ans) == nil && strings.Contains(ans.Reason+ans.Message, "CID is invalid")
		}}}
}
