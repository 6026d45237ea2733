//! Pictures and showcases through the real server: what an operator uploads, and what a browser loads.

use serde_json::{Value, json};
use system_tests::{Reply, Request, Server, doorbuster, item, open_sale, sale_of};

/// What the demo shows; its files are as a camera would have them once the test has written into them.
const BOOT: &[u8] = include_bytes!("../../../crates/doorbuster/src/demo/boot.jpg");
const PLANTED: &[u8] = b"GPS 52.5200N 13.4050E";
const PATH: &str = "/admin/v1/sales/drop/items/boot/picture";

/// The picture with a comment and an EXIF block that says where it was taken.
fn with_metadata() -> Vec<u8> {
    let mut file = BOOT[..2].to_vec();
    for (mark, name) in [(0xe1, &b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"[..]), (0xfe, b"")] {
        file.extend([0xff, mark]);
        file.extend(((2 + name.len() + PLANTED.len()) as u16).to_be_bytes());
        file.extend(name);
        file.extend(PLANTED);
    }
    file.extend(&BOOT[2..]);
    file
}

fn upload(server: &Server, file: &[u8]) -> Reply {
    server.operate(Request::new("PUT", PATH).body(file).header("content-type", "image/x-whatever"))
}

fn shown(server: &Server) -> Value {
    server.ask(&Request::get("/v1/sales/drop")).json()["items"][0]["picture"].clone()
}

/// Every file of the picture, by its path.
fn files(picture: &Value) -> Vec<(String, u64, &'static str)> {
    let sources = picture["sources"].as_array().unwrap().iter();
    let both = sources
        .flat_map(|source| [("webp", "image/webp"), ("jpeg", "image/jpeg")].map(|(key, kind)| (source, key, kind)));
    both.map(|(source, key, kind)| (source[key].as_str().unwrap().to_owned(), source["width"].as_u64().unwrap(), kind))
        .collect()
}

#[test]
fn a_picture_becomes_small_files_without_metadata_and_lasts() {
    let mut server = Server::start();
    server.create(&open_sale("drop", 3));
    assert_eq!(shown(&server), Value::Null);
    let told = upload(&server, &with_metadata()).is(200, "").json();
    let picture = shown(&server);
    assert_eq!(told, json!({ "item": "boot", "picture": picture }));
    assert_eq!((&picture["width"], &picture["height"]), (&json!(1_280), &json!(960)));
    assert_eq!(files(&picture).iter().map(|file| file.1).collect::<Vec<_>>(), [320, 320, 640, 640, 1_280, 1_280]);
    let mut loaded = Vec::new();
    for (path, width, kind) in files(&picture) {
        let reply = server.ask(&Request::get(&path));
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-type"), Some(kind));
        assert_eq!(reply.header("cache-control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(reply.header("cross-origin-resource-policy"), Some("cross-origin"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let bytes_max = match width {
            320 => 20,
            640 => 40,
            _ => 120,
        } * 1_024;
        assert!((500..=bytes_max).contains(&reply.body.len()), "{path}: {} bytes", reply.body.len());
        for text in [PLANTED, b"Exif"] {
            assert!(!reply.body.windows(text.len()).any(|found| found == text), "{path}");
        }
        loaded.push((path, reply.body));
    }

    server.kill();
    server.start_again();
    assert_eq!(shown(&server), picture, "after kill -9");
    for (path, body) in &loaded {
        assert_eq!(&server.ask(&Request::get(path)).body, body);
    }
    let remove = || server.operate(Request::new("DELETE", PATH)).is(200, "").json();
    assert_eq!(remove(), json!({ "item": "boot", "picture": null }));
    assert_eq!(remove(), json!({ "item": "boot", "picture": null }), "twice is once");
    assert_eq!(shown(&server), Value::Null);
    for (path, _) in &loaded {
        server.ask(&Request::get(path)).is(404, "not_found");
    }
}

#[test]
fn what_cannot_be_a_picture_changes_nothing_and_says_why() {
    let server = Server::start();
    server.create(&open_sale("drop", 3));
    upload(&server, BOOT).is(200, "");
    let before = shown(&server);
    // A header with its checksum, the beginning of pixels, and nothing more.
    let header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x06\0\0\0\x80\xd2uB";
    let bomb = [&header[..], b"\0\0\0\x09IDATx\x9cc\0\0\0\x01\0\x01^\xff}\xf9"].concat();
    for (what, file, word) in [
        ("nothing", Vec::new(), "JPEG, PNG or WebP"),
        ("a page", b"<!DOCTYPE html><script>alert(1)</script>".to_vec(), "JPEG, PNG or WebP"),
        ("a drawing", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(), "JPEG, PNG or WebP"),
        ("a GIF", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec(), "JPEG, PNG or WebP"),
        ("half", BOOT[..BOOT.len() / 2].to_vec(), "cut short"),
        ("a bomb", bomb, "60000 x 60000"),
    ] {
        let detail = upload(&server, &file).is(422, "picture_invalid").text("detail");
        assert!(detail.contains(word), "{what}: {detail}");
    }
    // Refused by what it says, so that nobody sends it all.
    let large = Request::new("PUT", PATH).header("content-length", &((8 << 20) + 1).to_string());
    server.operate(large).is(413, "body_too_large");
    assert_eq!(shown(&server), before);
    let large = [BOOT, &vec![0; (8 << 20) - BOOT.len()]].concat();
    upload(&server, &large).is(200, "");
    assert_eq!(shown(&server), before, "what stands behind the picture is not part of it");
    // No other route takes so much.
    let showcase = Request::new("PUT", "/admin/v1/sales/drop/showcase").body(&vec![b' '; 300_000]);
    server.operate(showcase).is(413, "body_too_large");
    for path in ["/admin/v1/sales/nothing/items/boot/picture", "/admin/v1/sales/drop/items/nothing/picture"] {
        server.operate(Request::new("PUT", path).body(BOOT)).is(404, "not_found");
    }
    for name in ["", "x", "0123456789abcdef0123456789abcdef-320.webp", "..%2f..%2fvault.sqlite", "a-320.svg"] {
        let reply = server.ask(&Request::get(&format!("/pictures/{name}"))).is(404, "not_found");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{name}");
    }
}

#[test]
fn a_showcase_is_replaced_as_a_whole_and_lasts() {
    let mut server = Server::start();
    server.create(&sale_of("drop", vec![item("boot", 1), item("poster", 1)]));
    let path = "/admin/v1/sales/drop/showcase";
    let set = |server: &Server, settings: &Value| server.operate(Request::new("PUT", path).json(settings));
    let empty = json!({ "origins": [], "button": {}, "descriptions": {} });
    assert_eq!(server.operate(Request::get(path)).is(200, "").json(), empty);
    let settings = json!({
        "origins": ["https://shop.example", "http://localhost:3000"],
        "button": { "en": "Get yours", "de": "Hol ihn dir" },
        "descriptions": { "boot": "A winter boot" },
    });
    assert_eq!(set(&server, &settings).is(200, "").json(), settings);
    upload(&server, BOOT).is(200, "");
    assert_eq!(shown(&server)["description"], "A winter boot");
    for (wrong, word) in [
        (json!({ "origins": ["https://shop.example/"] }), "origins[0]"),
        (json!({ "origins": ["https://shop.example", "http://shop.example"] }), "origins[1]"),
        (json!({ "origins": ["https://a.example; script-src *"] }), "origins[0]"),
        (json!({ "origins": (0..17).map(|n| format!("https://s{n}.example")).collect::<Vec<_>>() }), "16 at most"),
        (json!({ "button": { "English": "Buy" } }), "en or de-CH"),
        (json!({ "button": { "en": "x".repeat(41) } }), "button.en"),
        (json!({ "descriptions": { "hat": "A hat" } }), "no item"),
        (json!({ "descriptions": { "boot": "a\nb" } }), "descriptions.boot"),
        (json!({ "colour": "red" }), "colour"),
    ] {
        let detail = set(&server, &wrong).is(400, "malformed").text("detail");
        assert!(detail.contains(word), "{wrong}: {detail}");
    }
    server.terminate();
    server.start_again();
    assert_eq!(server.operate(Request::get(path)).json(), settings, "what was refused changed nothing");
    assert_eq!(set(&server, &json!({ "origins": ["https://other.example"] })).is(200, "").json()["button"], json!({}));
    assert_eq!(shown(&server)["description"], Value::Null);
    assert!(shown(&server)["sources"].is_array(), "the picture stays");
}

#[test]
fn the_command_line_shows_a_picture_and_takes_it_away() {
    let server = Server::start();
    server.create(&sale_of("drop", vec![item("boot", 1), item("boot-42", 1)]));
    let data = server.data().to_str().unwrap().to_owned();
    let (picture, settings) = (server.data().join("boot.jpg"), server.data().join("showcase.toml"));
    std::fs::write(&picture, BOOT).unwrap();
    std::fs::write(&settings, "origins = [\"https://shop.example\"]\n[descriptions]\nboot = \"A boot\"\n").unwrap();
    let run = |arguments: &[&str]| doorbuster(&[&["sale"], arguments, &["--data", &data]].concat());
    let picture = picture.to_str().unwrap();
    let told = run(&["picture", "drop", "boot", picture, "--json"]).json();
    assert_eq!(told["picture"], shown(&server));
    let told = run(&["showcase", "drop", settings.to_str().unwrap(), "--json"]).json();
    assert_eq!(told["origins"], json!(["https://shop.example"]));
    assert_eq!(run(&["showcase", "drop", "--json"]).json(), told);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/showcase.toml");
    assert_eq!(run(&["showcase", "drop", example, "--json"]).json()["button"]["de"], "Jetzt kaufen");
    run(&["showcase", "drop", settings.to_str().unwrap()]);
    assert_eq!(shown(&server)["description"], "A boot");
    run(&["picture", "drop", "boot", settings.to_str().unwrap()])
        .refused_with(&["picture_invalid", "JPEG, PNG or WebP"]);
    let large = server.data().join("large.jpg");
    std::fs::write(&large, vec![0; (8 << 20) + 1]).unwrap();
    run(&["picture", "drop", "boot", large.to_str().unwrap()]).refused_with(&["large.jpg", "8388608"]);
    run(&["picture", "drop", "hat", picture]).refused_with(&["not_found"]);
    run(&["showcase", "drop", picture]).refused_with(&["cannot read"]);
    assert_eq!(run(&["picture", "drop", "boot", "--remove", "--json"]).json()["picture"], Value::Null);
    assert_eq!(shown(&server), Value::Null);
    run(&["picture", "drop", "boot"]).refused_with(&["required"]);
}
