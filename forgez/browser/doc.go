// Package browser tests the page of package forgez in headless Chromium. It has tests
// only, which make browser runs.
package browser
