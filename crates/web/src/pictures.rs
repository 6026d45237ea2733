//! What a sale's page shows beside its definition: the operator sets it, anybody loads the pictures.

use std::sync::Arc;

use ::pictures::{Format, UPLOAD_BYTES_MAX};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::{Refusal, Right};
use engine::{Picture, Sale, ShowcaseError, ShowcaseSettings};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::admin::admit;
use crate::app::App;
use crate::body;
use crate::problem::{Problem, ProblemBody};
use crate::wire::{ItemPictureAnswer, PictureAnswer, SourceAnswer};

/// A name never means another picture.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// The shop's page shows it too.
const FOR_ALL_PAGES: HeaderValue = HeaderValue::from_static("cross-origin");

/// How large the body of an upload may be; `None` for any other request on the admin listener.
pub(crate) fn upload_bytes_max(method: &Method, path: &str) -> Option<usize> {
    let is_upload = *method == Method::PUT && path.starts_with("/admin/v1/sales/") && path.ends_with("/picture");
    is_upload.then_some(UPLOAD_BYTES_MAX)
}

/// What a sale's page shows, and who may embed it.
#[utoipa::path(
    get, path = "/admin/v1/sales/{sale}/showcase", tag = "operator", params(("sale" = String, Path)),
    responses((status = 200, body = ShowcaseSettings), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn showcase(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<ShowcaseSettings>, Problem> {
    admit(&app, &headers, Right::Read)?;
    let sale = app.named_sale(&name)?;
    Ok(Json(sale.showcase().settings.clone()))
}

/// Replace what a sale's page shows, and who may embed it. What is not named is empty afterwards; pictures stay.
#[utoipa::path(
    put, path = "/admin/v1/sales/{sale}/showcase", tag = "operator", request_body = ShowcaseSettings, params(("sale" = String, Path)),
    responses((status = 200, body = ShowcaseSettings), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn set_showcase(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<ShowcaseSettings>, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let settings: ShowcaseSettings = body::json(body::content_type(&headers), &bytes)?;
    let sale = app.named_sale(&name)?;
    let (setting, of) = (Arc::clone(&app), Arc::clone(&sale));
    let set = tokio::task::spawn_blocking(move || setting.engine.set_showcase(&of, &settings)).await;
    set.map_err(|error| Problem::internal(&error))?.map_err(|error| match error {
        ShowcaseError::Invalid(rule) => Problem::new(Refusal::Malformed, rule),
        ShowcaseError::Vault(error) => Problem::internal(&error),
    })?;
    Ok(Json(sale.showcase().settings.clone()))
}

/// Show a picture beside an item, in place of the one it had. The body is a JPEG, PNG or WebP file, whatever its content type says; small files
/// are made of its pixels, and nothing else of it is kept.
#[utoipa::path(
    put, path = "/admin/v1/sales/{sale}/items/{item}/picture", tag = "operator",
    params(("sale" = String, Path), ("item" = String, Path)),
    request_body(content = Vec<u8>, description = "The file, 8 MiB at most", content_type = "application/octet-stream"),
    responses((status = 200, body = ItemPictureAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn set_picture(
    State(app): State<Arc<App>>,
    Path((name, item)): Path<(String, String)>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Json<ItemPictureAnswer>, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let (sale, index) = item_of(&app, &name, &item)?;
    // One at a time, so that the other cores decide; the permit stays with the work, even if whoever asked has gone.
    let permit = Arc::clone(&app.picture_uploads).acquire_owned().await.map_err(|error| Problem::internal(&error))?;
    let (setting, of) = (Arc::clone(&app), Arc::clone(&sale));
    let set = tokio::task::spawn_blocking(move || {
        let _until_it_is_done = permit;
        let variants =
            ::pictures::variants(&bytes).map_err(|error| Problem::new(Refusal::PictureInvalid, error.to_string()))?;
        setting.engine.set_picture(&of, index, &variants).map_err(|error| Problem::internal(&error))
    });
    set.await.map_err(|error| Problem::internal(&error))??;
    Ok(Json(ItemPictureAnswer { picture: describe(&sale, usize::from(index)), item }))
}

/// Take an item's picture away. Doing it twice is doing it once.
#[utoipa::path(
    delete, path = "/admin/v1/sales/{sale}/items/{item}/picture", tag = "operator",
    params(("sale" = String, Path), ("item" = String, Path)),
    responses((status = 200, body = ItemPictureAnswer), (status = "default", body = ProblemBody)), security(("admin" = []))
)]
pub(crate) async fn remove_picture(
    State(app): State<Arc<App>>,
    Path((name, item)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<ItemPictureAnswer>, Problem> {
    admit(&app, &headers, Right::RunSales)?;
    let (sale, index) = item_of(&app, &name, &item)?;
    let removing = Arc::clone(&app);
    let removed = tokio::task::spawn_blocking(move || removing.engine.remove_picture(&sale, index)).await;
    removed.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))?;
    Ok(Json(ItemPictureAnswer { item, picture: None }))
}

fn item_of(app: &App, sale: &str, item: &str) -> Result<(Arc<Sale>, u16), Problem> {
    let sale = app.named_sale(sale)?;
    let index = sale.definition().item_index(item).ok_or(Refusal::NotFound)?;
    Ok((sale, index))
}

/// A picture's file. Its name is in the sale's answer, and never means another picture.
#[utoipa::path(
    get, path = "/pictures/{file}", tag = "shop",
    params(("file" = String, Path, description = "`{id}-{width}.webp` or `.jpg`")),
    responses((status = 200, description = "The picture", content_type = "image/webp"), (status = 404, body = ProblemBody))
)]
pub(crate) async fn picture(State(app): State<Arc<App>>, Path(file): Path<String>) -> Result<Response, Problem> {
    let (id, width, format) = read_name(&file).ok_or(Refusal::NotFound)?;
    let bytes = match app.engine.remembered_picture(id, width, format) {
        Some(bytes) => bytes,
        None if app.engine.has_picture(id, width) => {
            from_vault(&app, id, width, format).await?.ok_or(Refusal::NotFound)?
        }
        None => return Err(Refusal::NotFound.into()),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.content_type())),
        (header::CACHE_CONTROL, FOR_EVER),
        (RESOURCE_POLICY, FOR_ALL_PAGES),
    ];
    Ok((headers, bytes).into_response())
}

/// One at a time: while the first reads a file for a crowd, the others wait here and not on threads, and find it remembered.
async fn from_vault(app: &Arc<App>, id: &str, width: u32, format: Format) -> Result<Option<Bytes>, Problem> {
    let _permit = app.picture_reads.acquire().await.map_err(|error| Problem::internal(&error))?;
    let (reading, id) = (Arc::clone(app), id.to_owned());
    let read = tokio::task::spawn_blocking(move || reading.engine.picture_bytes(&id, width, format)).await;
    read.map_err(|error| Problem::internal(&error))?.map_err(|error| Problem::internal(&error))
}

/// Id, width and format, of the one name that a file has.
fn read_name(file: &str) -> Option<(&str, u32, Format)> {
    let (name, extension) = file.rsplit_once('.')?;
    let (id, width) = name.split_once('-')?;
    let (width, format) = (width.parse().ok()?, Format::parse(extension)?);
    (name_of(id, width, format) == format!("/pictures/{file}")).then_some((id, width, format))
}

fn name_of(id: &str, width: u32, format: Format) -> String {
    format!("/pictures/{id}-{width}.{}", format.extension())
}

/// The picture of the item of that index, as anybody may see it.
pub(crate) fn describe(sale: &Sale, item: usize) -> Option<PictureAnswer> {
    let showcase = sale.showcase();
    let Picture { id, width, height, widths } = showcase.pictures.get(item)?.as_ref()?;
    let source = |width: &u32| SourceAnswer {
        width: *width,
        webp: name_of(id, *width, Format::Webp),
        jpeg: name_of(id, *width, Format::Jpeg),
    };
    let item = &sale.definition().items[item].item;
    Some(PictureAnswer {
        width: *width,
        height: *height,
        sources: widths.iter().map(source).collect(),
        description: showcase.settings.descriptions.get(item).cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_name() {
        let id = "0123456789abcdef0123456789abcdef";
        for format in Format::ALL {
            let name = name_of(id, 320, format);
            assert_eq!(read_name(name.strip_prefix("/pictures/").unwrap()), Some((id, 320, format)));
        }
        for other in [
            "",
            "-",
            "a",
            "a-320",
            "a-320.png",
            "a-.jpg",
            "a-0320.jpg",
            "a-+320.jpg",
            "a-320.jpeg",
            "a-4294967296.jpg",
            "a-3-20.jpg",
        ] {
            assert_eq!(read_name(other), None, "{other:?}");
        }
    }
}
