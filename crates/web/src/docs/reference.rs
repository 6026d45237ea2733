//! The reference of the interface: the OpenAPI document as a page. What the document does not say does not stand here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{escaped, framed, markdown};

/// One request of the document.
struct Operation<'a> {
    verb: String,
    path: &'a str,
    what: &'a Value,
}

impl Operation<'_> {
    fn anchor(&self) -> String {
        let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
        format!("{}{}", self.verb.to_lowercase(), self.path.chars().map(plain).collect::<String>())
    }

    fn tag(&self) -> &str {
        self.what["tags"][0].as_str().unwrap_or("other")
    }
}

/// The page of a document.
pub(super) fn page(document: &utoipa::openapi::OpenApi) -> String {
    let document = serde_json::to_value(document).expect("a document has no map with odd keys");
    let mut by_tag: BTreeMap<&str, Vec<Operation<'_>>> = BTreeMap::new();
    let operations: Vec<_> = operations(&document).collect();
    for operation in &operations {
        let Operation { verb, path, what } = operation;
        let entry = Operation { verb: verb.clone(), path, what };
        by_tag.entry(operation.tag()).or_default().push(entry);
    }
    let mut body = format!("<h1>{}</h1>{}", text(&document["info"]["title"]), prose(&document["info"]["description"]));
    for (tag, operations) in &by_tag {
        let _ = write!(body, "<h2 id=\"{0}\">{0}</h2><ul class=\"routes\">", escaped(tag));
        for operation in operations {
            let (anchor, verb, path) = (operation.anchor(), &operation.verb, escaped(operation.path));
            let _ = write!(body, "<li><a href=\"#{anchor}\"><span class=\"verb\">{verb}</span><code>{path}</code></a>");
        }
        body.push_str("</ul>");
        operations.iter().for_each(|operation| write_operation(operation, &mut body));
    }
    body.push_str("<h2 id=\"schemas\">schemas</h2>");
    for (name, schema) in entries(&document["components"]["schemas"]) {
        let _ = write!(body, "<article id=\"schema-{0}\"><h3><code>{0}</code></h3>", escaped(name));
        write_schema(schema, &mut body);
        body.push_str("</article>");
    }
    framed("Interface", &body)
}

fn operations(document: &Value) -> impl Iterator<Item = Operation<'_>> {
    entries(&document["paths"]).flat_map(|(path, item)| {
        entries(item).map(move |(verb, what)| Operation { verb: verb.to_uppercase(), path, what })
    })
}

fn entries(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn prose(value: &Value) -> String {
    markdown(value.as_str().unwrap_or_default())
}

fn write_operation(operation: &Operation<'_>, out: &mut String) {
    let Operation { verb, path, what } = operation;
    let (anchor, path) = (operation.anchor(), escaped(path));
    let _ = write!(
        out,
        "<article id=\"{anchor}\"><h3><span class=\"verb\">{verb}</span><code>{path}</code></h3>{}{}",
        prose(&what["summary"]),
        prose(&what["description"])
    );
    let schemes: Vec<_> = list(&what["security"]).flat_map(entries).map(|(name, _)| whose(name)).collect();
    let token = if schemes.is_empty() { "none".to_owned() } else { schemes.join(" or ") };
    let _ = write!(out, "<p class=\"soft\">Token: {token}</p>");
    let parameters: Vec<_> = list(&what["parameters"]).collect();
    if !parameters.is_empty() {
        out.push_str(
            "<h4>Parameters</h4><div class=\"wide\" tabindex=\"0\"><table><thead><tr><th>name<th>in<th>type<th>meaning</thead><tbody>",
        );
        for of in parameters {
            let must = if of["required"] == true { "" } else { " <span class=\"soft\">optional</span>" };
            let (name, place, kind) = (text(&of["name"]), text(&of["in"]), kind(&of["schema"]));
            let about = prose(&of["description"]);
            let _ = write!(out, "<tr><td><code>{name}</code>{must}<td>{place}<td>{kind}<td>{about}");
        }
        out.push_str("</tbody></table></div>");
    }
    if let Some((media, body)) = entries(&what["requestBody"]["content"]).next() {
        let _ = write!(out, "<h4>Body</h4><p>{} as <code>{}</code></p>", kind(&body["schema"]), escaped(media));
    }
    out.push_str("<h4>Answers</h4><div class=\"wide\" tabindex=\"0\"><table><tbody>");
    for (status, answer) in entries(&what["responses"]) {
        let status =
            if status == "default" { "<a href=\"/docs/errors\">refusal</a>".to_owned() } else { escaped(status) };
        let _ = write!(out, "<tr><td>{status}<td>{}<td>", prose(&answer["description"]));
        for (media, body) in entries(&answer["content"]) {
            let _ = write!(out, "{} <span class=\"soft\">{}</span>", kind(&body["schema"]), escaped(media));
        }
    }
    out.push_str("</tbody></table></div></article>");
}

/// The name of a scheme in words.
fn whose(scheme: &str) -> String {
    match scheme {
        "token" => "the customer's".to_owned(),
        "admin" => "an admin's".to_owned(),
        other => escaped(other),
    }
}

fn write_schema(schema: &Value, out: &mut String) {
    out.push_str(&prose(&schema["description"]));
    for part in list(&schema["allOf"]) {
        if part["$ref"].is_string() {
            let _ = write!(out, "<p>Every field of {}, and:</p>", kind(part));
        } else {
            write_schema(part, out);
        }
    }
    if !schema["properties"].is_object() {
        if !schema["allOf"].is_array() {
            let _ = write!(out, "<p>{}</p>", kind(schema));
        }
        return;
    }
    out.push_str("<div class=\"wide\" tabindex=\"0\"><table><thead><tr><th>field<th>type<th>meaning</thead><tbody>");
    for (name, of) in entries(&schema["properties"]) {
        let required = list(&schema["required"]).any(|required| required == name);
        let must = if required { "" } else { " <span class=\"soft\">optional</span>" };
        let _ = write!(
            out,
            "<tr><td><code>{}</code>{must}<td>{}<td>{}",
            escaped(name),
            kind(of),
            prose(&of["description"])
        );
    }
    out.push_str("</tbody></table></div>");
}

/// What a value may be, in words; a schema of its own is linked.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escaped(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#schema-{name}\"><code>{name}</code></a>");
    }
    for choice in ["oneOf", "anyOf"] {
        if schema[choice].is_array() {
            return list(&schema[choice]).map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if schema["enum"].is_array() {
        let values = list(&schema["enum"]).map(|value| format!("<code>{}</code>", escaped(&plain(value))));
        return values.collect::<Vec<_>>().join(", ");
    }
    let mut kinds: Vec<_> = list(&schema["type"]).map(text).collect();
    kinds.extend(schema["type"].as_str().map(escaped));
    let mut kind = kinds.join(" or ");
    if schema["items"].is_object() {
        kind = format!("list of {}", self::kind(&schema["items"]));
    }
    if let Some(format) = schema["format"].as_str() {
        let _ = write!(kind, " <span class=\"soft\">({})</span>", escaped(format));
    }
    for (bound, word) in [("minimum", "from"), ("maximum", "to"), ("default", "; without it")] {
        if !schema[bound].is_null() {
            let _ = write!(kind, " {word} {}", escaped(&plain(&schema[bound])));
        }
    }
    if kind.is_empty() { "anything".to_owned() } else { kind }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_request_and_every_schema_has_a_place_and_every_link_leads_to_one() {
        let openapi = crate::openapi();
        let document = serde_json::to_value(&openapi).unwrap();
        let page = page(&openapi);
        let places: Vec<_> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let unique: BTreeSet<_> = places.iter().copied().collect();
        assert_eq!(unique.len(), places.len(), "no place has the name of another");
        for operation in operations(&document) {
            assert!(unique.contains(operation.anchor().as_str()), "{} {}", operation.verb, operation.path);
        }
        for (name, _) in entries(&document["components"]["schemas"]) {
            assert!(unique.contains(format!("schema-{name}").as_str()), "{name}");
        }
        let links = page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
        for link in links {
            assert!(unique.contains(link), "{link} leads nowhere");
        }
    }
}
