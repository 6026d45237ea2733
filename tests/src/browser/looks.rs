//! Who looks at a page, and on what: size, colours, language. And pictures of it.

use std::path::Path;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::page::Page;
use super::text;

/// Letters stay sharp; a quarter of a PNG's size where there are photographs.
const WEBP_QUALITY: u32 = 80;

impl Page {
    /// The window in CSS pixels, and device pixels per CSS pixel; `is_mobile` is a telephone: its viewport, and a finger.
    pub fn size(&self, width: u32, height: u32, scale: f64, is_mobile: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_mobile });
        self.command("Emulation.setDeviceMetricsOverride", &size);
        self.command("Emulation.setTouchEmulationEnabled", &json!({ "enabled": is_mobile }));
    }

    /// `dark` or `light`.
    pub fn scheme(&self, scheme: &str) {
        self.feature("prefers-color-scheme", scheme);
    }

    /// Somebody whom motion makes ill.
    pub fn reduced_motion(&self) {
        self.feature("prefers-reduced-motion", "reduce");
    }

    /// The language of the browser: `Accept-Language`, `navigator.language`, and how numbers and times are written.
    pub fn language(&self, language: &str) {
        let agent = text(&self.command("Browser.getVersion", &json!({})), "userAgent");
        self.command("Emulation.setUserAgentOverride", &json!({ "userAgent": agent, "acceptLanguage": language }));
        self.command("Emulation.setLocaleOverride", &json!({ "locale": language }));
    }

    /// Whether the page's scripts run: somebody's browser, or somebody's extension, lets none.
    pub fn scripts(&self, run: bool) {
        self.command("Emulation.setScriptExecutionDisabled", &json!({ "value": !run }));
    }

    /// A picture of the window, or of the whole page: a PNG, or what the file's ending says.
    pub fn screenshot(&self, path: &Path, is_full_page: bool) {
        let is_webp = path.extension().is_some_and(|ending| ending == "webp");
        let mut picture = json!({ "format": "png", "captureBeyondViewport": is_full_page });
        if is_webp {
            (picture["format"], picture["quality"]) = ("webp".into(), WEBP_QUALITY.into());
        }
        let picture = text(&self.command("Page.captureScreenshot", &self.clipped(picture, is_full_page)), "data");
        let bytes = BASE64.decode(picture.as_bytes()).expect("a picture is in base 64");
        std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn clipped(&self, mut picture: Value, is_full_page: bool) -> Value {
        if is_full_page {
            let size = &self.command("Page.getLayoutMetrics", &json!({}))["cssContentSize"];
            picture["clip"] = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        }
        picture
    }
}
