// The auth server's answer to a failed fetch, for programs that want to see the answer.
// internal/masked says what is masked.

package requestforge

import (
	"bytes"
	"context"
	"net/http"

	"github.com/requestforge/requestforge/internal/masked"
)

// answersKey is the key of the *keptAnswers in the context of a fetch.
type answersKey struct{}

// keptAnswers in a context says that answers are kept.
type keptAnswers struct{ known []string } // the tokens of the fetch

// keepAnswers returns the context of a fetch with in, whose answer is kept if keep says so.
func keepAnswers(ctx context.Context, keep bool, in Input) context.Context {
	if !keep {
		return ctx
	}
	kept := new(keptAnswers)
	for _, tok := range in.Parents {
		kept.add(tok)
	}
	kept.add(in.Previous)
	kept.add(in.newest)
	if in.Subject != "" {
		kept.known = append(kept.known, in.Subject)
	}
	return context.WithValue(ctx, answersKey{}, kept)
}

func (k *keptAnswers) add(tok *Token) {
	if tok != nil {
		k.known = append(k.known, tok.AccessToken, tok.RefreshToken)
		k.addLeaves(tok.Extra)
	}
}

// addLeaves adds each text in v, a part of Extra.
func (k *keptAnswers) addLeaves(v any) {
	switch v := v.(type) {
	case string:
		k.known = append(k.known, v)
	case map[string]any:
		for _, v := range v {
			k.addLeaves(v)
		}
	case []any:
		for _, v := range v {
			k.addLeaves(v)
		}
	}
}

// answerOf returns a function that returns resp and the bytes read of its body, masked; nil
// unless resp answers a fetch whose answers are kept. No printing or encoding of a struct
// shows the variables of a function.
func answerOf(resp *http.Response, body []byte) func() ([]byte, http.Header) {
	if resp == nil || resp.Request == nil || resp.StatusCode == 0 {
		return nil
	}
	kept, _ := resp.Request.Context().Value(answersKey{}).(*keptAnswers)
	if kept == nil {
		return nil
	}
	text, header := masked.Answer(resp, body, kept.known)
	return func() ([]byte, http.Header) { return bytes.Clone(text), header.Clone() }
}
