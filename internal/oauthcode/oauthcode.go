// Package oauthcode knows the registered OAuth error codes. Only registered codes may
// be shown: any other text in an "error" field is the server's own, and can hold a
// secret that was sent to the server.
package oauthcode

// Registered reports whether code is registered, and whether a registered code is
// permanent: the server would refuse the same request again. The refusal of a token
// isn't permanent, since the token's step can get a newer token.
func Registered(code string) (permanent, ok bool) {
	permanent, ok = codes[code]
	return permanent, ok
}

// codes maps a code to whether the code is permanent.
var codes = map[string]bool{
	// RFC 6749 §5.2, §4.1.2.1
	"invalid_request":           true,
	"invalid_client":            true,
	"invalid_grant":             true,
	"unauthorized_client":       true,
	"unsupported_grant_type":    true,
	"invalid_scope":             true,
	"access_denied":             true,
	"unsupported_response_type": true,
	"server_error":              false,
	"temporarily_unavailable":   false,
	// RFC 6750 §3.1, RFC 9470
	"invalid_token":                    false,
	"insufficient_scope":               false,
	"insufficient_user_authentication": false,
	// RFC 7009 §2.2.1
	"unsupported_token_type": true,
	// RFC 8628 §3.5
	"authorization_pending": false,
	"slow_down":             false,
	"expired_token":         true,
	// RFC 8707, RFC 9396
	"invalid_target":                true,
	"invalid_authorization_details": true,
	// RFC 9449: the next request has another proof.
	"use_dpop_nonce":     false,
	"invalid_dpop_proof": false,
	// OpenID Connect Core §3.1.2.6: a person has to log in.
	"interaction_required":       true,
	"login_required":             true,
	"account_selection_required": true,
	"consent_required":           true,
	"invalid_request_uri":        true,
	"invalid_request_object":     true,
	"request_not_supported":      true,
	"request_uri_not_supported":  true,
	"registration_not_supported": true,
}
