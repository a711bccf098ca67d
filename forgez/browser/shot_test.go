package browser

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// The pictures of the README are made from the page as it is, by go test -update.
func TestScreenshots(t *testing.T) {
	for name, l := range map[string]look{"light": {width: 1100, height: 900}, "dark": {width: 1100, height: 900, dark: true}} {
		shop := newShop(t)
		b := open(t, serve(t, page(shop.pipelines)), l)
		see(b, "sections", "document.querySelectorAll('main > section').length", 2)
		shop.busy()
		see(b, "changes", "document.querySelectorAll('#changes li').length", 2)
		shot, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("screenshots", name+".png")
		if *update {
			if err := os.WriteFile(file, shot, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		kept, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := png.DecodeConfig(bytes.NewReader(shot))
		if err != nil {
			t.Fatal(err)
		}
		got, err := png.DecodeConfig(bytes.NewReader(kept))
		if err != nil {
			t.Fatal(err)
		}
		// Fonts differ, and with them where lines break.
		if got.Width != want.Width || got.Height < want.Height*3/4 || got.Height > want.Height*4/3 {
			t.Errorf("%s is %d by %d, the page %d by %d: go test -run TestScreenshots . -update", file, got.Width, got.Height, want.Width, want.Height)
		}
	}
}
