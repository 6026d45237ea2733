//! Makes the files that browsers load of the sources in `assets`: scripts put together, comments and indentation taken out, and each
//! file compressed as far as it goes. What is left reads the same in a browser's tools as here.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Each script of a browser, and the sources that it is made of, in order.
const SCRIPTS: [(&str, &[&str]); 3] = [
    ("page.js", &["clock.js", "core.js", "speech.js", "page.js"]),
    ("button.js", &["clock.js", "core.js", "speech.js", "button.js"]),
    // Loaded by the other two when it is needed, so it keeps its export.
    ("human.js", &["human.js"]),
];

fn main() {
    println!("cargo:rerun-if-changed=assets");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names a folder"));
    for (name, parts) in SCRIPTS {
        let is_module = parts.len() == 1;
        let text: String = parts.iter().map(|part| script(&read(part), is_module)).collect();
        write(&out, name, &text);
    }
    write(&out, "page.css", &style(&read("page.css")));
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new("assets").join(name)).unwrap_or_else(|error| panic!("assets/{name}: {error}"))
}

/// A source without its imports, comments and indentation, and without its exports unless it is a module by itself. The sources keep to what this can read: a comment has its own lines,
/// an import one line, and no text goes over lines but those of a style.
fn script(source: &str, is_module: bool) -> String {
    let mut text = String::new();
    let mut in_comment = false;
    for line in source.lines().map(str::trim) {
        let begins = line.starts_with("/*");
        in_comment |= begins;
        if !(in_comment || line.is_empty() || line.starts_with("//") || line.starts_with("import ")) {
            text.push_str(if is_module { line } else { line.strip_prefix("export ").unwrap_or(line) });
            text.push('\n');
        }
        in_comment &= !line.ends_with("*/");
    }
    text
}

fn style(source: &str) -> String {
    let mut text = String::new();
    let mut in_comment = false;
    for line in source.lines().map(str::trim) {
        in_comment |= line.starts_with("/*");
        if !in_comment {
            text.push_str(line);
        }
        in_comment &= !line.ends_with("*/");
    }
    text
}

fn write(out: &Path, name: &str, text: &str) {
    let put = |ending: &str, bytes: &[u8]| {
        fs::write(out.join(format!("{name}{ending}")), bytes).expect("the build's folder can be written");
    };
    put("", text.as_bytes());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(text.as_bytes()).expect("memory can be written");
    put(".gz", &gzip.finish().expect("memory can be written"));
    let mut brotli = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams { quality: 11, lgwin: 22, ..Default::default() };
    brotli::BrotliCompress(&mut text.as_bytes(), &mut brotli, &parameters).expect("memory can be written");
    put(".br", &brotli);
}
