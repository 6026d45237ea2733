//! The pages under `/docs`: the reference of the interface, and what each refusal means.

use domain::Refusal;
use system_tests::{Reply, Request, Server};

fn page(server: &Server, path: &str) -> Reply {
    let reply = server.ask(&Request::get(path));
    assert_eq!(reply.status, 200, "{path}");
    reply
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.clone()).unwrap()
}

/// The values of an attribute.
fn values<'a>(page: &'a str, attribute: &str) -> Vec<&'a str> {
    let begin = format!(" {attribute}=\"");
    page.split(&begin).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn the_type_of_every_refusal_leads_to_its_page_on_both_listeners() {
    let server = Server::start();
    let list = text(&page(&server, "/docs/errors"));
    for refusal in Refusal::ALL.into_iter().chain([Refusal::Internal]) {
        let path = format!("/docs/errors/{}", refusal.code());
        let public = page(&server, &path);
        assert_eq!(public.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(text(&public).contains(&format!("HTTP {}, number {}.", refusal.status(), refusal as u16)), "{path}");
        assert!(values(&list, "href").contains(&path.as_str()), "{path}");
        let admins = Request::get(&path).send(server.admin());
        assert_eq!((admins.status, admins.body), (200, public.body));
    }
    let missing = server.ask(&Request::get("/docs/errors/nonsense")).is(404, "not_found");
    assert_eq!(page(&server, &missing.text("type")).status, 200);
}

#[test]
fn the_reference_names_every_request_and_links_to_places_that_exist() {
    let server = Server::start();
    let reference = text(&page(&server, "/docs"));
    let document = server.ask(&Request::get("/openapi.json")).json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for verb in item.as_object().unwrap().keys() {
            let heading = format!("<h3><span class=\"verb\">{}</span><code>{path}</code></h3>", verb.to_uppercase());
            assert_eq!(reference.matches(&heading).count(), 1, "{heading}");
        }
    }
    let places = values(&reference, "id");
    for link in values(&reference, "href") {
        match link.strip_prefix('#') {
            Some(place) => assert!(places.contains(&place), "{link}"),
            None if link == "data:," => {}
            None => assert_eq!(server.ask(&Request::get(link)).status, 200, "{link}"),
        }
    }
}

#[test]
fn a_page_loads_nothing_but_its_own_style() {
    let server = Server::start();
    for path in ["/docs", "/docs/errors", "/docs/errors/sold_out"] {
        let reply = page(&server, path);
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("script-src") && !policy.contains("http"), "{policy}");
        assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
        let text = text(&reply);
        for tag in ["<script", "<style", "<img", "<iframe", "<object", "<embed", "<form"] {
            assert!(!text.contains(tag), "{path} has {tag}");
        }
        for link in values(&text, "href") {
            assert!(link.starts_with('#') || link.starts_with('/') || link == "data:,", "{path} leads to {link}");
            assert!(!link.starts_with("//"), "{path} leads to {link}");
        }
        assert!(values(&text, "src").is_empty() && values(&text, "style").is_empty(), "{path}");
        let style: Vec<_> = text.split("<link rel=\"stylesheet\" href=\"").skip(1).collect();
        assert_eq!(style.len(), 1, "{path}");
        assert!(style[0].starts_with("/docs/style.css\""), "{path}");
    }
    let style = page(&server, "/docs/style.css");
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    let style = text(&style);
    assert!(!style.contains("url(") && !style.contains("@import") && style.contains("prefers-color-scheme:dark"));
}
