//! Bytes in the encodings that browsers take, and the assets that are made when the program is built.

use std::io::Write as _;

use bytes::Bytes;

/// Of a page that is made while somebody waits; a higher one costs more time than it saves on the wire.
const BROTLI_QUALITY: i32 = 5;
/// Of what is made once, at the start.
const BROTLI_QUALITY_BEST: i32 = 11;

/// One text, plain and compressed.
#[derive(Clone, Debug)]
pub struct Encoded {
    plain: Bytes,
    gzip: Bytes,
    brotli: Bytes,
}

impl Encoded {
    /// Compresses a page, quickly.
    pub fn page(text: &str) -> Self {
        Self::with(text, BROTLI_QUALITY)
    }

    /// Compresses what will be sent often.
    pub(crate) fn lasting(text: &str) -> Self {
        Self::with(text, BROTLI_QUALITY_BEST)
    }

    fn with(text: &str, quality: i32) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let written = gzip.write_all(text.as_bytes()).and_then(|()| gzip.finish());
        let mut brotli = Vec::new();
        let parameters = brotli::enc::BrotliEncoderParams { quality, lgwin: 22, ..Default::default() };
        let pressed = brotli::BrotliCompress(&mut text.as_bytes(), &mut brotli, &parameters);
        pressed.expect("memory can be written");
        Self {
            plain: Bytes::copy_from_slice(text.as_bytes()),
            gzip: written.expect("memory can be written").into(),
            brotli: brotli.into(),
        }
    }

    const fn of_build(plain: &'static [u8], gzip: &'static [u8], brotli: &'static [u8]) -> Self {
        Self { plain: Bytes::from_static(plain), gzip: Bytes::from_static(gzip), brotli: Bytes::from_static(brotli) }
    }

    /// Of what is compressed already.
    pub(crate) fn as_it_is(bytes: Vec<u8>) -> Self {
        Self { plain: bytes.into(), gzip: Bytes::new(), brotli: Bytes::new() }
    }

    /// The smallest form that `Accept-Encoding` allows, with the name of its encoding.
    pub fn pick(&self, accept_encoding: Option<&str>) -> (Bytes, Option<&'static str>) {
        let accepts = |name: &str| {
            accept_encoding.unwrap_or_default().split(',').any(|entry| {
                let mut parts = entry.split(';').map(str::trim);
                let is_named = parts.next().is_some_and(|encoding| encoding.eq_ignore_ascii_case(name));
                let is_refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)));
                is_named && !is_refused
            })
        };
        if self.brotli.is_empty() {
            (self.plain.clone(), None)
        } else if accepts("br") {
            (self.brotli.clone(), Some("br"))
        } else if accepts("gzip") {
            (self.gzip.clone(), Some("gzip"))
        } else {
            (self.plain.clone(), None)
        }
    }

    /// The text itself.
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }
}

/// A file that pages load, under a name that changes with its content, so that it may be kept for ever.
#[derive(Clone, Debug)]
pub struct Asset {
    /// Its path.
    pub path: String,
    /// Its content type.
    pub content_type: &'static str,
    /// Its bytes.
    pub encoded: Encoded,
}

impl Asset {
    /// A shop's logo, by the ending of its file's name; `None` for what browsers do not show.
    pub(crate) fn logo(ending: &str, bytes: Vec<u8>) -> Option<Self> {
        let content_type = match ending {
            "png" => "image/png",
            "jpg" | "jpeg" => "image/jpeg",
            "webp" => "image/webp",
            "svg" => "image/svg+xml",
            _ => return None,
        };
        let encoded = match ending {
            "svg" => Encoded::lasting(&String::from_utf8(bytes).ok()?),
            _ => Encoded::as_it_is(bytes),
        };
        Some(Self::new("logo", ending, content_type, encoded))
    }

    fn new(stem: &str, ending: &str, content_type: &'static str, encoded: Encoded) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(encoded.plain());
        Self { path: format!("/assets/{stem}-{hash:016x}.{ending}"), content_type, encoded }
    }

    /// The pages' script.
    pub(crate) fn script() -> Self {
        Self::new("page", "js", "text/javascript; charset=utf-8", built!("page.js"))
    }

    /// The buy button for a shop's own page.
    pub(crate) fn button() -> Self {
        Self::new("button", "js", "text/javascript; charset=utf-8", built!("button.js"))
    }

    /// The human check, which page and button load when they are asked for one.
    pub(crate) fn human() -> Self {
        Self::new("human", "js", "text/javascript; charset=utf-8", built!("human.js"))
    }

    /// The pages' style, with what a theme adds.
    pub(crate) fn style(theme: Option<&str>) -> Self {
        let built = built!("page.css");
        let encoded = match theme {
            None => built,
            Some(theme) => Encoded::lasting(&(String::from_utf8_lossy(built.plain()) + theme)),
        };
        Self::new("page", "css", "text/css; charset=utf-8", encoded)
    }
}

/// A file that the build has compressed.
macro_rules! built {
    ($name:literal) => {
        Encoded::of_build(
            include_bytes!(concat!(env!("OUT_DIR"), "/", $name)),
            include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
            include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".br")),
        )
    };
}
use built;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_encoding_that_is_accepted_is_picked() {
        let encoded = Encoded::page(&"a page ".repeat(100));
        let table = [
            (Some("gzip, deflate, br, zstd"), Some("br")),
            (Some("gzip;q=1.0, br;q=0"), Some("gzip")),
            (Some("GZIP"), Some("gzip")),
            (Some("identity"), None),
            (Some("gzip;q=0, br;q=0.0"), None),
            (Some(""), None),
            (None, None),
        ];
        for (accepted, picked) in table {
            assert_eq!(encoded.pick(accepted).1, picked, "{accepted:?}");
        }
        assert!(encoded.pick(Some("br")).0.len() < encoded.plain().len() / 4);
    }

    #[test]
    fn scripts_are_within_their_sizes_and_whole() {
        let (page, button, human) = (Asset::script(), Asset::button(), Asset::human());
        for asset in [&page, &button, &Asset::style(None)] {
            let text = String::from_utf8(asset.encoded.plain().to_vec()).unwrap();
            assert!(!text.contains("\nimport ") && !text.contains("\nexport "), "{}", asset.path);
            assert!(!text.contains("//!") && !text.contains("\n//"), "{}", asset.path);
        }
        let text = String::from_utf8(human.encoded.plain().to_vec()).unwrap();
        assert!(
            !text.contains("\nimport ") && !text.contains("\n//") && text.contains("\nexport async function prove(")
        );
        assert!(human.encoded.pick(Some("br")).0.len() <= 4_096, "{}", human.encoded.pick(Some("br")).0.len());
        assert!(page.encoded.pick(Some("br")).0.len() <= 8_192, "{}", page.encoded.pick(Some("br")).0.len());
        assert!(button.encoded.pick(Some("br")).0.len() <= 8_192, "{}", button.encoded.pick(Some("br")).0.len());
        // What a browser has to read once it is there, which docs/button.md tells.
        assert!(button.encoded.plain().len() <= 26_000, "{}", button.encoded.plain().len());
    }

    #[test]
    fn a_theme_changes_the_name_of_the_style() {
        let (plain, themed) = (Asset::style(None), Asset::style(Some(":root{--button:#f00}")));
        assert_ne!(plain.path, themed.path);
        assert!(themed.encoded.plain().ends_with(b"--button:#f00}"));
    }
}
