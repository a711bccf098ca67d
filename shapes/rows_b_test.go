// The facts of the 27 Go clients, as of August 2026. Where a client has a choice, a row
// is there for each. The names of cookies that aren't known are made up.

package shapes_test

import (
	"encoding/xml"
	"errors"
	"strings"
	"time"
)

const (
	csrfSetting = "X-Csrf-Token"
	acos        = "application/*+xml;version=39.1"
)

// jsonRPC is a request of the program, to the one URL that there is.
func jsonRPC(body string, f facts) request {
	return request{method: "POST", ctype: "application/json", body: body, facts: f}
}

var rowsB = []shape{
	{row: "B1", name: "gofish (Redfish)",
		calls: []call{
			{name: "root", method: "GET", url: "https://bmc.example/redfish/v1/", to: "root", gives: []string{"sessions"}, public: true, answers: said(`{"Links":{"Sessions":{"@odata.id":"/redfish/v1/SessionService/$sessions"}}}`)},
			{name: "login", url: "https://bmc.example/redfish/v1/SessionService/$sessions", facts: facts{body: J{"UserName": user, "Password": password}}, from: "root", to: "login", gives: []string{"token", "session"},
				answers: []answer{{status: 201, header: map[string]string{"X-Auth-Token": "$token", "Location": "/redfish/v1/SessionService/$sessions/$session"}, body: `{"Id":"$session"}`}}},
		},
		api: on("https://bmc.example/redfish/v1", header("X-Auth-Token", "$token"))},
	{row: "B2", name: "go-catalystcenter",
		calls: one("https://catalyst.example/dna/system/api/v1/auth/token", header("Authorization", basic(user+":"+password)).with(nothing{}), `{"Token":"$token"}`),
		api:   on("https://catalyst.example/dna/intent/api/v1", header("X-Auth-Token", "$token"))},
	{row: "B3", name: "go-nd", life: 20 * time.Minute,
		calls: []call{
			{name: "login", url: "https://nd.example/login", facts: facts{body: J{"userName": user, "userPasswd": password, "domain": "local"}}, to: "login", gives: []string{"token", "sid"},
				answers: []answer{{body: `{"token":"$token"}`, cookies: []string{"AuthCookie=$sid; Path=/; Secure; HttpOnly"}}}},
			{name: "lifetime", method: "GET", url: "https://nd.example/nexus/api/config", facts: facts{header: m{"Authorization": bearer("$token")}, cookie: m{"AuthCookie": "$sid"}}, from: "login", answers: said(`{"config":{"jwt_session_timeout_sec":$life}}`)},
		},
		api: api{base: "https://nd.example/nexus/api", facts: facts{header: m{"Authorization": bearer("$token")}, cookie: m{"AuthCookie": "$sid"}}, refusals: []answer{{status: 401, body: `Token is expired or invalid`}}}},
	{row: "B4", name: "oneview-golang", life: 24 * hour, idle: true,
		calls: []call{
			{name: "login", url: "https://oneview.example/rest/login-sessions", facts: header("X-Api-Version", "6800").with(J{"userName": user, "password": password, "authLoginDomain": "LOCAL", "loginMsgAck": true}), to: "login", gives: []string{"token"}, answers: said(`{"sessionID":"$token"}`)},
			{name: "idle", method: "GET", url: "https://oneview.example/rest/sessions/idle-timeout", facts: header("Auth", "$token", "Session-Id", "$token", "X-Api-Version", "6800"), from: "login", answers: said(`{"idleTimeout":$millis}`), dead: answer{status: 404}},
		},
		api: on("https://oneview.example/rest", header("Auth", "$token", "X-Api-Version", "6800"))},
	{row: "B5", name: "apstra-go-sdk",
		calls: one("https://apstra.example/api/aaa/login", facts{body: J{"username": user, "password": password}}, `{"token":"$token"}`),
		api:   on("https://apstra.example/api", header("Authtoken", "$token"))},
	{row: "B6", name: "go-bigip", life: hour,
		calls: []call{
			{name: "login", url: "https://bigip.example/mgmt/shared/authn/login", facts: facts{body: J{"username": user, "password": password, "loginProviderName": "tmos"}}, to: "login", gives: []string{"token"}, answers: said(`{"token":{"token":"$token","expirationMicros":$unixus}}`)},
			{name: "extend", method: "PATCH", url: "https://bigip.example/mgmt/shared/authz/tokens/$token", facts: header("X-F5-Auth-Token", "$token").with(J{"timeout": 3600}), from: "login", extends: true, answers: said(`{"token":"$token","timeout":3600,"expirationMicros":$unixus}`), dead: answer{status: 401}},
		},
		api: on("https://bigip.example/mgmt/tm", header("X-F5-Auth-Token", "$token"))},
	{row: "B7", name: "go-pihole", life: 30 * time.Minute,
		calls: []call{{name: "login", url: "https://pi.hole.example/api/auth", facts: facts{body: J{"password": password}}, to: "login", gives: []string{"token", "csrf"}, answers: said(`{"session":{"valid":true,"sid":"$token","csrf":"$csrf","validity":$life}}`)}},
		api:   on("https://pi.hole.example/api", header("X-Ftl-Sid", "$token"))},
	{row: "B8", name: "terraform-provider-vra, 8.x",
		calls: []call{
			{name: "version", method: "GET", url: "https://vra.example/config.json", to: "version", public: true, answers: said(`{"version":"8.18"}`)},
			{name: "login", url: "https://vra.example/iaas/api/login", facts: facts{body: J{"refreshToken": patToken}}, from: "version", to: "login", gives: []string{"token"}, answers: said(`{"token":"$token","tokenType":"Bearer"}`)},
		},
		api: on("https://vra.example/iaas/api", asBearer)},
	{row: "B8", name: "terraform-provider-vra, 9.x",
		calls: []call{
			{name: "version", method: "GET", url: "https://vra.example/config.json", to: "version", public: true, answers: said(`{"version":"9.0"}`)},
			{name: "login", url: "https://vra.example/oauth/token", facts: facts{body: grantForm("refresh_token", form{"refresh_token": patToken})}, from: "version", to: "login", gives: []string{"token"}, answers: said(bareOAuth)},
		},
		api: on("https://vra.example/iaas/api", asBearer)},
	{row: "B9", name: "go-vcloud-director",
		calls: []call{
			{name: "versions", method: "GET", url: "https://vcd.example/api/versions", to: "versions", gives: []string{"sessions"}, public: true,
				answers: said(`<SupportedVersions><VersionInfo><Version>38.0</Version><LoginUrl>https://vcd.example/api/old</LoginUrl></VersionInfo><VersionInfo><Version>39.1</Version><LoginUrl>https://vcd.example/api/$sessions</LoginUrl></VersionInfo></SupportedVersions>`)},
			{name: "login", url: "https://vcd.example/api/$sessions", facts: header("Authorization", basic("ada@acme:"+password), "Accept", acos).with(nothing{}), from: "versions", to: "login", gives: []string{"token"},
				answers: []answer{{header: map[string]string{"X-Vmware-Vcloud-Access-Token": "$token", "X-Vmware-Vcloud-Token-Type": "Bearer"}, body: `<Session/>`}}},
		},
		api: on("https://vcd.example/api", header("Authorization", bearer("$token"), "X-Vmware-Vcloud-Access-Token", "$token", "X-Vmware-Vcloud-Token-Type", "Bearer", "Accept", acos))},
	{row: "B10", name: "go-fmc", life: 30 * time.Minute,
		calls: []call{
			{name: "login", url: "https://fmc.example/api/fmc_platform/v1/auth/generatetoken", facts: header("Authorization", basic(user+":"+password)).with(nothing{}), to: "login", gives: []string{"token", "refresh", "domain"}, answers: []answer{fmcTokens}, wrong: answer{status: 200, body: `{"error":"wrong credentials"}`}},
			{name: "refresh", renewal: true, url: "https://fmc.example/api/fmc_platform/v1/auth/refreshtoken", facts: header("X-Auth-Access-Token", "$token", "X-Auth-Refresh-Token", "$refresh").with(nothing{}), from: "login", spends: true, to: "login", gives: []string{"token", "refresh"}, answers: []answer{fmcTokens}},
		},
		api: on("https://fmc.example/api/fmc_config/v1/domain/$domain", header("X-Auth-Access-Token", "$token"))},
	{row: "B11", name: "govmomi (REST), /rest",
		calls: one("https://vcenter.example/rest/com/vmware/cis/session", header("Authorization", basic(user+":"+password), "Vmware-Use-Header-Authn", "true").with(nothing{}), `{"value":"$token"}`),
		api:   on("https://vcenter.example/rest", header("Vmware-Api-Session-Id", "$token"))},
	{row: "B11", name: "govmomi (REST), /api",
		calls: one("https://vcenter.example/api/session", header("Authorization", basic(user+":"+password), "Vmware-Use-Header-Authn", "true").with(nothing{}), `"$token"`),
		api:   on("https://vcenter.example/api", header("Vmware-Api-Session-Id", "$token"))},
	{row: "B12", name: "goscaleio, version 3", calls: scaleio("3.6"), api: on("https://scaleio.example/api", header("Authorization", basic(":$token")))},
	{row: "B12", name: "goscaleio, version 4", calls: scaleio("4.5"), api: on("https://scaleio.example/api", asBearer)},
	{row: "B13", name: "go-aci, aci-go-client", life: 600 * second,
		calls: []call{
			{name: "login", url: "https://apic.example/api/aaaLogin.json", facts: facts{body: J{"aaaUser": J{"attributes": J{"name": user, "pwd": password}}}}, to: "login", gives: []string{"token"},
				answers: []answer{aciTokens("aaaLogin", `"$life"`, `"$created"`), aciTokens("aaaLogin", `$life`, `$created`)}},
			{name: "refresh", renewal: true, method: "GET", url: "https://apic.example/api/aaaRefresh.json", facts: facts{cookie: m{"APIC-Cookie": "$token"}}, from: "login", to: "login", gives: []string{"token"},
				answers: []answer{aciTokens("aaaRefresh", `"$life"`, `"$created"`)}, dead: answer{status: 403}},
		},
		api: api{base: "https://apic.example/api", facts: facts{cookie: m{"APIC-Cookie": "$token"}}, refusals: []answer{{status: 403, body: `{"imdata":[{"error":{"attributes":{"code":"403","text":"Token was invalid (Error: Token timeout)"}}}]}`}}}},
	{row: "B14", name: "pugo",
		calls: []call{
			{name: "token", url: "https://pugo.example/api/login", facts: facts{body: J{"username": user, "password": password}}, to: "token", gives: []string{"first"}, answers: said(`{"api_token":"$first"}`)},
			{name: "session", url: "https://pugo.example/api/session", facts: facts{body: J{"api_token": "$first"}}, from: "token", to: "session", gives: []string{"sid"}, answers: []answer{{body: `{}`, cookies: []string{"session=$sid; Path=/; HttpOnly"}}}},
		},
		api: on("https://pugo.example/api", facts{cookie: m{"session": "$sid"}})},
	{row: "B15", name: "adc-nitro-go, as the vendor has it", calls: nitroLogin,
		api: api{base: "https://adc.example/nitro/v1/config", facts: facts{cookie: m{"NITRO_AUTH_TOKEN": "$token"}}, refusals: nitroRefusals}},
	{row: "B15", name: "adc-nitro-go, as the client has it", calls: nitroLogin,
		api: api{base: "https://adc.example/nitro/v1/config", facts: header("Set-Cookie", "NITRO_AUTH_TOKEN=$token"), refusals: nitroRefusals}},
	{row: "B16", name: "pango",
		calls: []call{{name: "login", url: "https://panos.example/api/", facts: facts{body: form{"type": "keygen", "user": user, "password": password}}, to: "login", gives: []string{"token"}, single: true, answers: said(`<response status="success"><result><key>$token</key></result></response>`)}},
		api: api{base: "https://panos.example/api/", facts: header("X-Pan-Key", "$token"), ok: `<response status="success"/>`,
			refusals: []answer{{status: 403, body: `<response status="error" code="16"/>`}, {body: `<response status="error" code="22"/>`}},
			requests: []request{
				{method: "POST", ctype: "application/x-www-form-urlencoded", body: "type=op&cmd=%3Cshow%2F%3E"},
				{method: "GET", path: "?type=config&action=get", other: `<response status="error" code="7"/>`},
			}}},
	{row: "B17", name: "go-proxmox", life: 2 * hour,
		calls: []call{
			{name: "login", url: "https://pve.example:8006/api2/json/access/ticket", facts: facts{body: J{"username": user, "password": password, "otp": totp, "realm": "pam"}}, to: "login", gives: []string{"token", "csrf"}, answers: said(`{"data":{"ticket":"$token","CSRFPreventionToken":"$csrf"}}`)},
			{name: "renewal", renewal: true, url: "https://pve.example:8006/api2/json/access/ticket", facts: facts{body: J{"username": user, "password": "$token", "realm": "pam"}}, from: "login", to: "login", gives: []string{"token", "csrf"}, answers: said(`{"data":{"ticket":"$token","CSRFPreventionToken":"$csrf"}}`)},
		},
		api: api{base: "https://pve.example:8006/api2/json", facts: facts{cookie: m{"PVEAuthCookie": "$token"}, header: m{"CSRFPreventionToken": "$csrf"}}, refusals: []answer{{status: 401}, {status: 403}}}},
	{row: "B18", name: "go-unifi, old paths", calls: unifi(302, "/api/login"), api: unifiAPI("https://unifi.example/api")},
	{row: "B18", name: "go-unifi, new paths", calls: unifi(200, "/api/auth/login"), api: unifiAPI("https://unifi.example/proxy/network/api")},
	{row: "B19", name: "gounity",
		calls: []call{{name: "login", method: "GET", url: "https://unity.example/api/types/loginSessionInfo", facts: header("Authorization", basic(user+":"+password), "X-Emc-Rest-Client", "true"), to: "login", gives: []string{"sid", "csrf"},
			answers: []answer{{header: map[string]string{"EMC-CSRF-TOKEN": "$csrf"}, cookies: []string{"mod_sec_emc=$sid; path=/; secure; HttpOnly"}, body: `{}`}}}},
		api: api{base: "https://unity.example/api", facts: facts{cookie: m{"mod_sec_emc": "$sid"}, header: m{"X-Emc-Rest-Client": "true"}}, requests: []request{
			{method: "GET", path: "/types/lun/instances"},
			{method: "POST", path: "/types/lun/action", ctype: "application/json", body: `{"size":1}`, facts: header("Emc-Csrf-Token", "$csrf")},
			{method: "DELETE", path: "/instances/lun/sv_1", facts: header("Emc-Csrf-Token", "$csrf")},
		}}},
	{row: "B20", name: "gopowerstore",
		calls: []call{{name: "login", method: "GET", url: "https://powerstore.example/api/rest/login_session", facts: header("Authorization", basic(user+":"+password)), to: "login", gives: []string{"sid", "csrf"},
			answers: []answer{{header: map[string]string{"DELL-EMC-TOKEN": "$csrf"}, cookies: []string{"auth_cookie=$sid; Path=/; Secure; HttpOnly"}, body: `[]`}}}},
		api: api{base: "https://powerstore.example/api/rest", facts: facts{cookie: m{"auth_cookie": "$sid"}, header: m{"Authorization": basic(user + ":" + password), "Dell-Emc-Token": "$csrf"}},
			refusals: []answer{{status: 403}}, renews: []string{"csrf"}, renewal: answer{header: map[string]string{"DELL-EMC-TOKEN": "$csrf"}}}},
	{row: "B21", name: "go-sdwan",
		calls: []call{
			{name: "login", url: "https://vmanage.example/j_security_check", facts: facts{body: form{"j_username": user, "j_password": password}}, to: "login", gives: []string{"sid"}, answers: []answer{{cookies: []string{"JSESSIONID=$sid; Path=/; Secure; HttpOnly"}}},
				wrong: answer{status: 200, cookies: []string{"JSESSIONID=nobody; Path=/"}, body: `<html><body>Login failed</body></html>`}},
			{name: "xsrf", method: "GET", url: "https://vmanage.example/dataservice/client/token", facts: facts{cookie: m{"JSESSIONID": "$sid"}}, from: "login", to: "xsrf", gives: []string{"token"}, answers: said(`$token`)},
		},
		api: on("https://vmanage.example/dataservice", facts{cookie: m{"JSESSIONID": "$sid"}, header: m{"X-Xsrf-Token": "$token"}})},
	{row: "B22", name: "go-synology",
		calls: []call{{name: "login", method: "GET", url: "https://nas.example/webapi/entry.cgi?api=SYNO.API.Auth&method=login&version=6", to: "login", gives: []string{"sid", "csrf", "did"}, facts: synologyFacts(password), answers: said(`{"success":true,"data":{"sid":"$sid","synotoken":"$csrf","did":"$did"}}`), wrong: answer{status: 200, body: `{"success":false,"error":{"code":400}}`}}},
		api:   synologyAPI},
	{row: "B22", name: "go-synology, a second call with a token",
		calls: []call{
			{name: "first", method: "GET", url: "https://nas.example/webapi/entry.cgi?api=SYNO.API.Auth&method=login&version=6", to: "first", gives: []string{"second"}, facts: synologyFacts(password), answers: said(`{"success":false,"error":{"code":403,"errors":{"token":"$second"}}}`), wrong: answer{status: 200, body: `{"success":false,"error":{"code":400}}`}},
			{name: "login", method: "GET", url: "https://nas.example/webapi/entry.cgi?api=SYNO.API.Auth&method=login&version=6", from: "first", once: true, to: "login", gives: []string{"sid", "csrf", "did"}, facts: synologyFacts("$second"), answers: said(`{"success":true,"data":{"sid":"$sid","synotoken":"$csrf","did":"$did"}}`)},
		},
		api: synologyAPI},
	{row: "B23", name: "alb-sdk (Avi)",
		calls: []call{{name: "login", url: "https://avi.example/login", facts: facts{body: J{"username": user, "password": password}}, to: "login", gives: []string{"sid", "csrf"}, answers: []answer{{body: `{}`, cookies: aviCookies}}}},
		api: api{base: "https://avi.example/api", facts: facts{cookie: m{"sessionid": "$sid", "avi-sessionid": "$sid", "csrftoken": "$csrf"},
			header: m{"X-Csrftoken": "$csrf", "Referer": "https://avi.example/api", "X-Avi-Version": "31.1.1", "X-Avi-Tenant": "admin"}},
			renews: []string{"sid", "csrf"}, renewal: answer{cookies: aviCookies}, busy: 419}},
	{row: "B24", name: "forti-sdk-go (FortiManager)",
		calls: []call{{name: "login", url: "https://fmg.example/jsonrpc", facts: facts{body: J{"id": 1, "method": "exec", "params": []any{J{"url": "/sys/login/user", "data": []any{J{"user": user, "passwd": password}}}}}}, to: "login", gives: []string{"token"},
			answers: said(`{"id":1,"result":[{"status":{"code":0,"message":"OK"}}],"session":"$token"}`)}},
		api: api{base: "https://fmg.example/jsonrpc", ok: `{"id":2,"result":[{"status":{"code":0,"message":"OK"}}]}`, refusals: []answer{{body: `{"id":2,"result":[{"status":{"code":-11,"message":"No permission for the resource"}}]}`}},
			requests: []request{
				jsonRPC(`{"id":2,"method":"get","params":[{"url":"/dvmdb/device"}]}`, facts{body: besides{json: m{"session": "$token"}}}),
			}}},
	{row: "B25", name: "go-zabbix-api",
		calls: []call{{name: "login", url: "https://zabbix.example/api_jsonrpc.php", facts: facts{body: J{"jsonrpc": "2.0", "method": "user.login", "id": 1, "params": J{"user": user, "password": password}}}, to: "login", gives: []string{"token"},
			answers: said(`{"jsonrpc":"2.0","result":"$token","id":1}`)}},
		api: api{base: "https://zabbix.example/api_jsonrpc.php", ok: `{"jsonrpc":"2.0","result":[],"id":2}`, refusals: []answer{{body: `{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params.","data":"Session terminated, re-login, please."},"id":2}`}},
			requests: []request{
				jsonRPC(`{"jsonrpc":"2.0","method":"host.get","id":2,"params":{"output":["hostid"]}}`, facts{body: besides{json: m{"auth": "$token"}}}),
				{method: "POST", ctype: "application/json", body: `{"jsonrpc":"2.0","method":"host.bad","id":3,"params":{}}`, facts: facts{body: besides{json: m{"auth": "$token"}}}, other: `{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params.","data":"Incorrect method."},"id":3}`},
			}}},
	{row: "B26", name: "terraform-provider-aviatrix",
		calls: []call{
			{name: "key", method: "GET", url: "https://controller.aviatrix.example/v2/api", facts: facts{body: form{"action": "get_api_token"}}, to: "key", gives: []string{"key"}, answers: said(`{"return":true,"results":{"api_token":"$key"}}`), wrong: answer{status: 200, body: `{"return":false,"reason":"No."}`}},
			{name: "login", url: "https://controller.aviatrix.example/v2/api", facts: header("X-Access-Key", "$key").with(form{"action": "login", "username": user, "password": password}), from: "key", to: "login", gives: []string{"token"}, answers: said(`{"return":true,"CID":"$token"}`), wrong: answer{status: 200, body: `{"return":false,"reason":"invalid credentials"}`}, dead: answer{status: 200, body: `{"return":false,"reason":"invalid api token"}`}},
		},
		api: api{base: "https://controller.aviatrix.example/v2", ok: `{"return":true}`, refusals: []answer{{body: `{"return":false,"reason":"CID is invalid or expired."}`}, {status: 403, body: `{"message":"CID is invalid or expired."}`}},
			requests: []request{
				{method: "POST", path: "/api", ctype: "application/x-www-form-urlencoded", body: "action=list_vpcs", facts: facts{body: besides{form: m{"CID": "$token"}}}},
				{method: "GET", path: "/api?action=list_accounts", facts: facts{query: m{"CID": "$token"}}},
				{method: "GET", path: "/gateways", facts: header("Authorization", scheme("cid", "$token"))},
				{method: "GET", path: "/api?action=secret", facts: facts{query: m{"CID": "$token"}}, other: `{"return":false,"reason":"You have no right."}`},
			}}},
	{row: "B27", name: "simpleforce",
		calls: []call{{name: "login", url: "https://login.salesforce.example/services/Soap/u/62.0", facts: header("Soapaction", "login").with(checked(soapLogin)), to: "login", gives: []string{"token", "instance"},
			answers: said(`<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:partner.soap.sforce.com"><soapenv:Body><loginResponse><result><serverUrl>https://$instance.my.salesforce.example/services/Soap/u/62.0/00D</serverUrl><sessionId>$token</sessionId></result></loginResponse></soapenv:Body></soapenv:Envelope>`)}},
		api: on("https://$instance.my.salesforce.example/services/data/v62.0", asBearer)},
}

var fmcTokens = answer{status: 204, header: map[string]string{"X-auth-access-token": "$token", "X-auth-refresh-token": "$refresh", "DOMAIN_UUID": "$domain", "DOMAINS": `[{"name":"Global","uuid":"$domain"}]`}}

func scaleio(version string) []call {
	return []call{
		{name: "login", method: "GET", url: "https://scaleio.example/api/login", facts: header("Authorization", basic(user+":"+password)), to: "login", gives: []string{"token"}, answers: said(`"$token"`)},
		{name: "version", method: "GET", url: "https://scaleio.example/api/version", facts: header("Authorization", basic(":$token")), from: "login", answers: said(`"` + version + `"`)},
	}
}

func aciTokens(name, life, created string) answer {
	return answer{cookies: []string{"APIC-Cookie=$token; path=/; HttpOnly; Secure"},
		body: `{"totalCount":"1","imdata":[{"` + name + `":{"attributes":{"token":"$token","refreshTimeoutSeconds":` + life + `,"creationTime":` + created + `}}}]}`}
}

var nitroLogin = one("https://adc.example/nitro/v1/config/login", facts{body: J{"login": J{"username": user, "password": password, "timeout": 900}}}, `{"errorcode":0,"message":"Done","sessionid":"$token"}`)

var nitroRefusals = []answer{
	{status: 401, body: `{"errorcode":444,"message":"Session expired or killed. Please login again","severity":"ERROR"}`},
	{status: 401, body: `{"errorcode":1027,"message":"Not logged in or connection timed out","severity":"ERROR"}`},
}

func unifi(status int, path string) []call {
	probe := answer{status: status}
	if status == 302 {
		probe.header = map[string]string{"Location": "/manage"}
	}
	return []call{
		{name: "probe", method: "GET", url: "https://unifi.example/", to: "probe", public: true, answers: []answer{probe}},
		{name: "login", url: "https://unifi.example" + path, facts: facts{body: J{"username": user, "password": password}}, from: "probe", to: "login", gives: []string{"sid", "csrf"},
			answers: []answer{{header: map[string]string{csrfSetting: "$csrf"}, cookies: []string{"TOKEN=$sid; path=/; secure; httponly"}, body: `{}`}}},
	}
}

func unifiAPI(base string) api {
	return api{base: base, facts: facts{cookie: m{"TOKEN": "$sid"}, header: m{csrfSetting: "$csrf"}}, renews: []string{"csrf"}, renewal: answer{header: map[string]string{csrfSetting: "$csrf"}}}
}

func synologyFacts(password string) facts {
	return facts{query: m{"account": user, "passwd": password, "otp_code": totp, "format": "sid", "enable_syno_token": "yes", "timezone": "+00:00"}}
}

var synologyAPI = api{base: "https://nas.example/webapi/entry.cgi", ok: `{"success":true,"data":{}}`,
	refusals: []answer{{body: `{"success":false,"error":{"code":119}}`}, {body: `{"success":false,"error":{"code":106}}`}, {body: `{"success":false,"error":{"code":107}}`}},
	requests: []request{
		{method: "GET", path: "?api=SYNO.FileStation.List&method=list", facts: facts{query: m{"_sid": "$sid", "SynoToken": "$csrf"}}},
		{method: "POST", ctype: "application/x-www-form-urlencoded", body: "api=SYNO.Core.User&method=create", facts: facts{body: besides{form: m{"_sid": "$sid", "SynoToken": "$csrf"}}, header: m{"X-Syno-Token": "$csrf"}, cookie: m{"did": "$did", "id": "$sid"}}},
		{method: "GET", path: "?api=SYNO.Bad", facts: facts{query: m{"_sid": "$sid", "SynoToken": "$csrf"}}, other: `{"success":false,"error":{"code":102}}`},
	}}

var aviCookies = []string{"sessionid=$sid; Path=/; Secure; HttpOnly", "avi-sessionid=$sid; Path=/; Secure; HttpOnly", "csrftoken=$csrf; Path=/; Secure"}

func soapLogin(at *at) error {
	var got struct {
		Body struct {
			Login struct {
				Username string `xml:"username"`
				Password string `xml:"password"`
			} `xml:"login"`
		}
	}
	if !strings.HasPrefix(at.r.Header.Get("Content-Type"), "text/xml") {
		return errors.New("no XML by its type")
	}
	if err := xml.Unmarshal(at.body, &got); err != nil {
		return err
	}
	if got.Body.Login.Username != user || got.Body.Login.Password != password+patToken {
		return errValue
	}
	return nil
}
