// Which flow is run on which server.

package servers

// Flow is a way to get tokens, and the servers that it is run on.
type Flow struct {
	Name    string
	Source  string   // its specification
	Example string   // the folder of its program below examples
	Servers []string // by Server.Name; none means that a server is simulated
}

// Flows are all of them. The table of the README is made from it, and the tests
// run each flow on each of its servers.
var Flows = []Flow{
	{Name: "client credentials", Source: "RFC 6749 §4.4", Example: "clientcredentials", Servers: []string{
		"fosite",
		"go-oauth2",
		"oidc-provider",
		"zitadel",
	}},
	{Name: "refresh-token rotation", Source: "RFC 6749 §6, RFC 9700 §4.14", Example: "rotation", Servers: []string{
		"fosite",
		"go-oauth2",
		"oidc-provider",
		"zitadel",
	}},
	{Name: "logout", Source: "RFC 7009", Example: "logout", Servers: []string{
		"fosite",
		"go-oauth2",
		"oidc-provider",
		"zitadel",
	}},
	{Name: "token exchange", Source: "RFC 8693", Example: "tokenexchange", Servers: []string{
		"oidc-provider",
		"zitadel",
	}},
	{Name: "token exchange for many users", Source: "RFC 8693", Example: "onbehalf", Servers: []string{"oidc-provider", "zitadel"}},
	{Name: "ID-JAG for many users", Source: "draft-ietf-oauth-identity-assertion-authz-grant", Example: "idjag", Servers: []string{"oidc-provider", "zitadel"}},
	{Name: "JWT bearer", Source: "RFC 7523", Example: "jwtbearer", Servers: []string{
		"fosite",
		"zitadel",
	}},
	{Name: "device", Source: "RFC 8628", Example: "device", Servers: []string{"oidc-provider"}},
	{Name: "registry challenge", Source: "distribution's token authentication", Example: "registry", Servers: []string{"docker-registry"}},
	{Name: "AppRole", Source: "Vault's AppRole auth method", Example: "approle"},
	{Name: "three steps on two servers", Source: "RFC 6749 §4.4, RFC 8693, distribution's token authentication", Example: "threesteps", Servers: []string{"docker-registry", "oidc-provider"}},
}
