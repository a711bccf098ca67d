// The programs that log in as the rows of rows_a_test.go say.

package shapes_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"time"

	rf "github.com/requestforge/requestforge"
	"github.com/requestforge/requestforge/oauth2source"
)

// one login, and what goes on requests.
func program1(row string, ttl time.Duration, f rf.Fetcher, cfg rf.Config) func() program {
	return func() program {
		return program{row: row, login: []rf.Step{{Name: "login", TTL: ttl, Fetcher: f}}, api: cfg}
	}
}

// knowing is a program that knows when its session ends.
func knowing(p func() program) func() program {
	return func() program { p := p(); p.knows = true; return p }
}

func noting(note string, p func() program) func() program {
	return func() program { p := p(); p.note = note; return p }
}

func basicOf(text string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(text))
}

// headers of a request, two by two.
func headers(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

// bare is a header that holds the token and nothing else.
func bareIn(header string) []rf.Place {
	return []rf.Place{{Header: header, Bare: header == "Authorization"}}
}

var basicClientAuth = &rf.ClientAuth{ID: clientID, Secret: secret}
var inBody = &rf.ClientAuth{ID: clientID, Secret: secret, InBody: true}

type vs = url.Values

var tableau = m{"credentials": m{"personalAccessTokenName": "ci", "personalAccessTokenSecret": patToken, "site": m{"contentUrl": "acme"}}}

var programsA = []func() program{
	knowing(program1("A1", hour, &rf.HTTPFetcher{URL: "https://pbx.example/connect/token", Form: vs{"grant_type": {"client_credentials"}}, ClientAuth: inBody}, rf.Config{BaseURL: "https://pbx.example/xapi/v1"})),
	knowing(program1("A2", 0, &rf.HTTPFetcher{URL: "https://api.agencyzoom.example/v1/api/auth/login", JSON: m{"username": user, "password": password}, TokenField: "jwt"}, rf.Config{BaseURL: "https://api.agencyzoom.example/v1/api"})),
	knowing(program1("A3", 0, &rf.HTTPFetcher{URL: "https://login.altrata.example/token?grant_type=client_credentials", ClientAuth: &rf.ClientAuth{ID: user, Secret: password}, Header: headers("x-api-key", apiKey)},
		rf.Config{BaseURL: "https://api.altrata.example/v2", Attach: []rf.Place{{Header: "Authorization"}, {Header: "x-api-key", Text: apiKey}}})),
	knowing(program1("A4", 0, oauth2source.ClientCredentials(oauth2source.Config{TokenURL: "https://account.apple.example/auth/oauth2/v2/token", ClientAuth: &rf.ClientAuth{ID: "BUSINESSAPI.1"}, Scopes: []string{"business.api"}, ClientAssertion: &oauth2source.JWT{Key: ecKey, KeyID: "key-1"}}),
		rf.Config{BaseURL: "https://api-business.apple.example/v1"})),
	noting("a new login instead of the refresh call", program1("A5", 0, &rf.HTTPFetcher{URL: "https://api.aspire.example/Authorization", JSON: m{"ClientId": clientID, "Secret": secret}, TokenField: "Token"}, rf.Config{BaseURL: "https://api.aspire.example/v1"})),
	knowing(program1("A9", 0, &rf.HTTPFetcher{URL: "https://dfid.dayforce.example/connect/token", Form: vs{"grant_type": {"password"}, "companyId": {"acme"}, "username": {user}, "password": {password}, "client_id": {"Dayforce.HCMAnywhere.Client"}}}, rf.Config{BaseURL: "https://api.dayforce.example/Api/acme"})),
	program1("A7", 0, &rf.HTTPFetcher{URL: "https://api.breezy.example/v3/signin", JSON: m{"email": user, "password": password}}, rf.Config{BaseURL: "https://api.breezy.example/v3", Attach: bareIn("Authorization")}),
	knowing(program1("A8", 0, &rf.HTTPFetcher{URL: "https://pinotage.datto.example/auth/oauth/token", Form: vs{"grant_type": {"password"}, "username": {apiKey}, "password": {password}}, ClientAuth: &rf.ClientAuth{ID: "public-client", Secret: "public"}}, rf.Config{BaseURL: "https://pinotage.datto.example/api"})),
	knowing(program1("A11", 0, &rf.HTTPFetcher{URL: "https://drupal.example/oauth/token", Form: vs{"grant_type": {"client_credentials"}, "username": {user}}, ClientAuth: inBody}, rf.Config{BaseURL: "https://drupal.example/jsonapi"})),
	knowing(program1("A12", 900*second, &rf.HTTPFetcher{URL: "https://test.ecu360.example/auth/login", Header: headers("ecu360-api-key", apiKey), JSON: m{"userName": user, "password": password, "isEncrypted": false, "mfaToken": ""}, TokenField: "jwtToken"}, rf.Config{BaseURL: "https://test.ecu360.example/api"})),
	knowing(program1("A13", 900*second, &rf.HTTPFetcher{URL: "https://ecu360.example/auth/login", Header: headers("ecu360-api-key", apiKey), JSON: m{"userName": user, "password": password, "isEncrypted": false, "mfaToken": ""}, TokenField: "jwtToken"}, rf.Config{BaseURL: "https://ecu360.example/api"})),
	program1("A14", 0, &rf.HTTPFetcher{URL: "https://tellmeapi.embat.example/customers/users/login", JSON: m{"email": user, "password": password}, TokenField: "idToken"}, rf.Config{BaseURL: "https://tellmeapi.embat.example"}),
	knowing(program1("A15", 0, oauth2source.JWTBearer(oauth2source.Config{TokenURL: "https://oauth2.googleapis.example/token"},
		&oauth2source.JWT{Key: rsaKey, Issuer: "robot@project.example", Subject: user, Lifetime: hour, Claims: m{"scope": "admin.directory.user admin.directory.group"}}), rf.Config{BaseURL: "https://admin.googleapis.example/admin/directory/v1"})),
	knowing(program1("A16", 0, &rf.HTTPFetcher{URL: "https://heapanalytics.example/api/public/v0/auth_token", Header: headers("Authorization", basicOf("11:"+apiKey))}, rf.Config{BaseURL: "https://heapanalytics.example/api/public/v0"})),
	knowing(program1("A17", 0, &rf.HTTPFetcher{URL: "https://acme.jamf.example/api/v1/auth/token", Header: headers("Authorization", basicOf(user+":"+password)), TokenField: "token", ExpiresAtField: "expires"}, rf.Config{BaseURL: "https://acme.jamf.example/api"})),
	program1("A18", 0, &rf.HTTPFetcher{Method: "GET", URL: "https://api.jobdiva.example/apiv2/authenticate?" + vs{"clientid": {"17"}, "username": {user}, "password": {password}}.Encode(), TokenField: "."}, rf.Config{BaseURL: "https://api.jobdiva.example/apiv2"}),
	knowing(program1("A19", 0, &rf.HTTPFetcher{Method: "GET", URL: "https://api.leapsome.example/scim/v1/token?" + vs{"secret": {secret}}.Encode(), TokenField: "token", ExpiresInField: "expiresIn"}, rf.Config{BaseURL: "https://api.leapsome.example/scim/v1"})),
	knowing(program1("A20", 0, &rf.HTTPFetcher{URL: "https://looker.example/api/4.0/login", Form: vs{"client_id": {clientID}, "client_secret": {secret}}}, rf.Config{BaseURL: "https://looker.example/api/4.0"})),
	knowing(program1("A21", 0, oauth2source.ClientCredentials(oauth2source.Config{TokenURL: "https://login.microsoft.example/tenant/oauth2/v2.0/token", ClientAuth: &rf.ClientAuth{ID: "app-1"}, Scopes: []string{"https://graph.microsoft.example/.default"},
		ClientAssertion: &oauth2source.JWT{Key: rsaKey, Algorithm: "PS256", Header: m{"x5t#S256": x5tS256}, Lifetime: hour}}), rf.Config{BaseURL: "https://graph.microsoft.example/v1.0"})),
	program1("A22", 0, &rf.HTTPFetcher{URL: "https://login.mip.example/api/v1/sso/mipadv/login", JSON: m{"username": user, "password": password, "org": "acme"}, TokenField: "AccessToken"}, rf.Config{BaseURL: "https://api.mip.example/api/v1", Attach: bareIn("authorization-token")}),
	program1("A23", 0, &rf.HTTPFetcher{URL: "https://mip.acme.example/api/security/login", JSON: m{"login": user, "password": password, "org": "acme"}, TokenField: "AccessToken"}, rf.Config{BaseURL: "https://mip.acme.example/api", Attach: bareIn("authorization-token")}),
	program1("A24", 0, &rf.HTTPFetcher{URL: "https://stage.ema-api.example/firm/ema/ws/oauth2/grant", Header: headers("x-api-key", apiKey), Form: vs{"grant_type": {"password"}, "username": {user}, "password": {password}}},
		rf.Config{BaseURL: "https://stage.ema-api.example/firm/ema/fhir/v2", Attach: []rf.Place{{Header: "Authorization"}, {Header: "x-api-key", Text: apiKey}}}),
	knowing(program1("A25", 0, &rf.HTTPFetcher{URL: "https://ncentral.example/api/auth/authenticate", Header: headers("Authorization", "Bearer "+patToken), TokenField: "tokens.access.token", ExpiresInField: "tokens.access.expirySeconds"}, rf.Config{BaseURL: "https://ncentral.example/api"})),
	knowing(program1("A26", 0, oauth2source.ClientCredentials(oauth2source.Config{TokenURL: "https://123.suitetalk.example/services/rest/auth/oauth2/v1/token",
		ClientAssertion: &oauth2source.JWT{Key: rsaKey, KeyID: "cert-1", Issuer: "consumer-1", Lifetime: hour}}), rf.Config{BaseURL: "https://123.suitetalk.example/services/rest"})),
	knowing(program1("A27", 0, &rf.HTTPFetcher{URL: "https://odoo.example/restapi/1.0/common/oauth2/access_token", Form: vs{"grant_type": {"client_credentials"}}, ClientAuth: inBody, ExpiresInField: "access_token_validity"}, rf.Config{BaseURL: "https://odoo.example/restapi/1.0"})),
	knowing(program1("A28", 0, &rf.HTTPFetcher{URL: "https://acme.orangelogic.example/webapi/security/clientcredentials", JSON: m{}, ClientAuth: inBody}, rf.Config{BaseURL: "https://acme.orangelogic.example/api"})),
	knowing(program1("A29", 0, &rf.HTTPFetcher{URL: "https://us.passportal.example/api/v2/auth/client_token", Header: headers("x-key", clientID, "x-hash", apiKey), JSON: m{"scope": "docs_api", "content": "acme"}, ExpiresAtField: "expiry_time"}, rf.Config{BaseURL: "https://us.passportal.example/api/v2", Attach: bareIn("x-access-token")})),
	knowing(program1("A30", 0, &rf.HTTPFetcher{URL: "https://auth.perimeter81.example/api/v1/auth/authorize", JSON: m{"apiKey": apiKey, "grantType": "api_key"}, TokenField: "data.accessToken", ExpiresAtField: "data.accessTokenExpire"}, rf.Config{BaseURL: "https://api.perimeter81.example/api/rest"})),
	knowing(program1("A31", 0, &rf.HTTPFetcher{URL: "https://api.pverify.example/Token", Header: headers("Client-API-Id", apiKey), Form: vs{"grant_type": {"client_credentials"}, "Client_Id": {clientID}, "Client_Secret": {secret}}},
		rf.Config{BaseURL: "https://api.pverify.example/API", Attach: []rf.Place{{Header: "Authorization"}, {Header: "client-api-id", Text: apiKey}}})),
	knowing(program1("A33", 0, &rf.HTTPFetcher{URL: "https://acme.researchdesk.example/api/auth/login", JSON: m{"email": user, "password": password}, TokenField: "token", ExpiresAtField: "expires"}, rf.Config{BaseURL: "https://acme.researchdesk.example/api"})),
	program1("A34", 0, &rf.HTTPFetcher{URL: "https://sage.acme.example/api/v1/login", Header: headers("x-dppkey", apiKey), JSON: m{"userid": user, "password": password}, TokenField: "Data"},
		rf.Config{BaseURL: "https://sage.acme.example/api/v1", Attach: []rf.Place{{Header: "x-credentials"}, {Header: "x-dppkey", Text: apiKey}, {Header: "x-databasename", Text: "acme"}}}),
	knowing(program1("A36", 0, &rf.HTTPFetcher{URL: "https://api.intacct.example/ia/api/v1/oauth2/token", Form: vs{"grant_type": {"client_credentials"}, "username": {"ada@acme"}, "session_id": {""}}, ClientAuth: inBody}, rf.Config{BaseURL: "https://api.intacct.example/ia/api/v1"})),
	knowing(noting("a new login instead of the refresh call", program1("A39", 0, &rf.HTTPFetcher{URL: "https://api.salesmessage.example/pub/v2.2/auth/token", Header: headers("Authorization", "Bearer "+patToken), JSON: m{}}, rf.Config{BaseURL: "https://api.salesmessage.example/pub/v2.2"}))),
	knowing(program1("A40", 1700*second, &rf.HTTPFetcher{URL: "https://b1.example:50000/b1s/v1/Login", JSON: m{"CompanyDB": "ACME", "UserName": user, "DBInstance": "NDB", "Password": password}, TokenCookie: "B1SESSION", Cookies: true},
		rf.Config{BaseURL: "https://b1.example:50000/b1s/v1", Attach: []rf.Place{{Cookie: "B1SESSION"}}})),
	knowing(program1("A41", 0, &rf.HTTPFetcher{URL: "https://us.api.concur.example/oauth2/v0/token", Form: vs{"grant_type": {"password"}, "username": {user}, "password": {password}}, ClientAuth: inBody}, rf.Config{BaseURL: "https://us.api.concur.example"})),
	knowing(program1("A42", 0, &rf.HTTPFetcher{URL: "https://acme.fieldglass.example/api/oauth2/v2.0/token?grant_type=client_credentials&response_type=token", Header: headers("X-ApplicationKey", apiKey), ClientAuth: basicClientAuth}, rf.Config{BaseURL: "https://acme.fieldglass.example/api/v1"})),
	knowing(program1("A46", 0, oauth2source.JWTBearer(oauth2source.Config{TokenURL: "https://acme.service-now.example/oauth_token.do", ClientAuth: inBody},
		&oauth2source.JWT{Key: rsaKey, KeyID: "key-1", Subject: user, Audience: clientID}), rf.Config{BaseURL: "https://acme.service-now.example/api/now"})),
	knowing(program1("A47", 0, &rf.HTTPFetcher{Method: "GET", URL: "https://developer.setmore.example/api/v1/o/oauth2/token?" + vs{"refreshToken": {secret}}.Encode(), TokenField: "data.token.access_token", ExpiresInField: "data.token.expires_in"}, rf.Config{BaseURL: "https://developer.setmore.example/api/v1"})),
	knowing(program1("A48", 0, &rf.HTTPFetcher{URL: "https://login.microsoft.example/acme/oauth2/token", Form: vs{"grant_type": {"client_credentials"}, "client_id": {clientID}, "resource": {"https://acme.sharepoint.example"}, "client_assertion_type": {assertionType}, "client_assertion": {readyJWT}}}, rf.Config{BaseURL: "https://acme.sharepoint.example/_api"})),
	program1("A49", 0, &rf.HTTPFetcher{URL: "https://api.shopvox.example/v1/sessions", JSON: m{"user": user, "password": password}, TokenField: "authToken"},
		rf.Config{BaseURL: "https://api.shopvox.example/v1", Attach: []rf.Place{{Query: "authToken"}, {Query: "account_id", Value: "accountID"}}}),
	knowing(program1("A50", hour, &rf.HTTPFetcher{URL: "https://shopworks.acme.example/signin", JSON: m{"username": user, "password": password}, TokenField: "id_token"}, rf.Config{BaseURL: "https://shopworks.acme.example/api", Attach: bareIn("Authorization")})),
	knowing(program1("A51", 0, &rf.HTTPFetcher{URL: "https://tableau.example/api/3.27/auth/signin", JSON: tableau, TokenField: "credentials.token", ExpiresInField: "credentials.estimatedTimeToExpiration"},
		rf.Config{BaseURL: "https://tableau.example/api/3.27", Attach: bareIn("x-tableau-auth"), RefusedStatus: []int{403}})),
	knowing(program1("A52", 0, &rf.HTTPFetcher{URL: "https://api.tailscale.example/api/v2/oauth/token", Form: vs{"client_id": {clientID}, "client_secret": {secret}}}, rf.Config{BaseURL: "https://api.tailscale.example/api/v2"})),
	knowing(noting("a new login instead of the refresh call", program1("A53", 0, &rf.HTTPFetcher{URL: "https://api.timify.example/v1/auth/token", JSON: m{"appid": clientID, "appsecret": secret}, TokenField: "accessToken", ExpiresInField: "expires"}, rf.Config{BaseURL: "https://api.timify.example/v1", Attach: bareIn("Authorization")}))),
	knowing(program1("A54", 0, &rf.HTTPFetcher{URL: "https://ws-api.toasttab.example/authentication/v1/authentication/login", JSON: m{"clientId": clientID, "clientSecret": secret, "userAccessType": "TOAST_MACHINE_CLIENT"}, TokenField: "token.accessToken", ExpiresInField: "token.expiresIn"},
		rf.Config{BaseURL: "https://ws-api.toasttab.example", Attach: []rf.Place{{Header: "Authorization"}, {Header: "toast-restaurant-external-id", Text: "r-17"}}})),
	knowing(program1("A56", 0, &rf.HTTPFetcher{URL: "https://welcome-us.ukg.example/oauth/token", JSON: m{"grant_type": "http://auth0.com/oauth/grant-type/password-realm", "audience": "https://wfm.ukgapis.example", "realm": "acme", "username": user, "password": password}, ClientAuth: inBody}, rf.Config{BaseURL: "https://acme.mykronos.example/api/v1"})),
	knowing(noting("a new login instead of the refresh call", program1("A57", 0, &rf.HTTPFetcher{URL: "https://api.valley.example/auth/login", JSON: m{"email": user, "password": password}}, rf.Config{BaseURL: "https://api.valley.example"}))),
	func() program {
		return program{row: "A60", login: []rf.Step{
			{Name: "oauth", Fetcher: oauth2source.JWTBearer(oauth2source.Config{TokenURL: "https://wd5.workday.example/ccx/oauth2/acme/token"}, &oauth2source.JWT{Key: rsaKey, Issuer: "app-1", Subject: user, Audience: "wd"})},
			{Name: "login", DependsOn: []string{"oauth"}, Fetcher: &rf.HTTPFetcher{Method: "GET", URL: "https://login.adaptive.example/token", HeaderFrom: map[string]string{"Authorization": "oauth"}, TokenField: "adaptiveAPIAccessToken"}},
		}, api: rf.Config{BaseURL: "https://api.adaptiveplanning.example/api"}}
	},
	knowing(program1("A61", 0, &rf.HTTPFetcher{URL: "https://wd5.workday.example/oauth2/v1/token", Header: headers("Authorization", "ID "+base64.StdEncoding.EncodeToString([]byte(clientID+":"+secret))), Form: vs{"grant_type": {"client_credentials"}, "tenant_alias": {"acme"}}}, rf.Config{BaseURL: "https://wd5.workday.example/api"})),
	knowing(program1("A62", hour, &rf.HTTPFetcher{URL: "https://wd5.workday.example/ccx/oauth2/acme/token", Form: vs{"grant_type": {"refresh_token"}, "refresh_token": {patToken}}, ClientAuth: basicClientAuth}, rf.Config{BaseURL: "https://wd5.workday.example/ccx/api/v1/acme"})),
	program1("A63", 0, &rf.HTTPFetcher{URL: "https://api.yotpo.example/core/v3/stores/shop-1/access_tokens", JSON: m{"secret": secret}}, rf.Config{BaseURL: "https://api.yotpo.example/core/v3/stores/shop-1", Attach: bareIn("x-yotpo-token")}),
}
