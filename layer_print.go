// How the layers print. A printed http.Client, or a struct that contains a layer, shows
// neither Place.Text nor a foreign Base nor any other field.

package requestforge

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/requestforge/requestforge/internal/format"
	"github.com/requestforge/requestforge/internal/mistake"
)

// Format writes the layers by their types, for every verb.
func (t *Transport) Format(f fmt.State, verb rune) { format.Text(f, verb, layersOf(t)) }

// Format writes the types of the layer and of all layers below, for every verb, and each
// Place without its Text.
func (t *AuthTransport) Format(f fmt.State, verb rune) { format.Text(f, verb, layersOf(t)) }

// Format writes the types of the layer and of all layers below, for every verb.
func (t *RetryTransport) Format(f fmt.State, verb rune) { format.Text(f, verb, layersOf(t)) }

// Format writes the types of the layer and of all layers below, for every verb.
func (t *LoggingTransport) Format(f fmt.State, verb rune) { format.Text(f, verb, layersOf(t)) }

// layersOf returns rt and the layers below as text, outermost first.
func layersOf(rt http.RoundTripper) string {
	var all []string
	for range mostLayers {
		text := fmt.Sprintf("%T", rt)
		if auth, ok := rt.(*AuthTransport); ok && auth != nil && auth.Attach != nil {
			text += fmt.Sprint(auth.Attach)
		}
		all = append(all, text)
		ours, ok := rt.(interface{ lower() http.RoundTripper })
		if !ok || mistake.IsNil(rt) {
			break
		}
		if rt = ours.lower(); rt == nil {
			all = append(all, "http.DefaultTransport")
			break
		}
	}
	return strings.Join(all, " > ")
}
