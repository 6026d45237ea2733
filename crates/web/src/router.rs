//! All routes on one screen, and the OpenAPI document that is generated from them.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get};
use axum::{Json, Router};
use domain::Refusal;
use payment::Provider;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::problem::Problem;
use crate::{
    accounts, admin, blocks, challenges, customers, docs, erase, export, feed, handover, hold_token, overload,
    pass_keys, payments, pictures, purchase, session, shop, site, stream, tokens, webhooks, wire,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Doorbuster", description = "A flash-sale engine: exact answers in milliseconds, and proof."),
    // The hot path does not go through this router, so it is named here.
    paths(purchase::purchase),
    components(schemas(wire::PurchaseBody)),
    modifiers(&Tokens)
)]
struct Document;

struct Tokens;

impl utoipa::Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        for (name, what) in [("token", "The shop's access token"), ("admin", "An admin token")] {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(what)).build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}

fn public_routes() -> OpenApiRouter<Arc<App>> {
    // POST /v1/sales/{sale}/items/{item}/purchases is `purchase::purchase`, called by `service` without this router.
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(shop::time))
        .routes(routes!(shop::sales))
        .routes(routes!(shop::sale))
        .routes(routes!(shop::heads))
        .routes(routes!(session::begin, session::end))
        .routes(routes!(challenges::challenge))
        .routes(routes!(challenges::audio))
        .routes(routes!(challenges::fixed_set))
        .routes(routes!(challenges::fixed_file))
        .routes(routes!(customers::take_pass))
        .routes(routes!(customers::mine))
        .routes(routes!(customers::purchase_status))
        .routes(routes!(stream::ticket))
        .routes(routes!(stream::events))
        .routes(routes!(customers::orders))
        .routes(routes!(customers::order))
        .routes(routes!(customers::cancel))
        .routes(routes!(hold_token::hold_token))
        .routes(routes!(payments::pay))
        .routes(routes!(payments::callback))
        .routes(routes!(pictures::picture))
        .routes(routes!(shop::healthz))
        .routes(routes!(shop::readyz))
}

fn admin_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(admin::sales, admin::create_sale))
        .routes(routes!(admin::apply_sale))
        .routes(routes!(admin::turn_sale))
        .routes(routes!(admin::change_stock))
        .routes(routes!(pictures::showcase, pictures::set_showcase))
        .routes(routes!(challenges::set_human_check))
        .routes(routes!(pictures::set_picture, pictures::remove_picture))
        .routes(routes!(admin::orders))
        .routes(routes!(accounts::payments))
        .routes(routes!(accounts::payments_parked))
        .routes(routes!(export::orders_csv))
        .routes(routes!(export::orders_json))
        .routes(routes!(handover::order))
        .routes(routes!(admin::confirm))
        .routes(routes!(admin::cancel))
        .routes(routes!(payments::begin_payment))
        .routes(routes!(payments::report_payment))
        .routes(routes!(payments::refund))
        .routes(routes!(admin::parked))
        .routes(routes!(feed::feed))
        .routes(routes!(webhooks::list, webhooks::add))
        .routes(routes!(webhooks::turn))
        .routes(routes!(webhooks::remove))
        .routes(routes!(admin::metrics))
        .routes(routes!(overload::watch::load))
        .routes(routes!(blocks::list, blocks::add))
        .routes(routes!(blocks::remove))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(pass_keys::rotate))
        .routes(routes!(erase::erase))
        .routes(routes!(erase::anonymise))
}

/// The OpenAPI document of both listeners.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, mut document) = public_routes().split_for_parts();
    let (_, operator) = admin_routes().split_for_parts();
    document.merge(operator);
    document
}

pub(crate) fn public(app: &Arc<App>) -> Router {
    let (router, _) = public_routes().split_for_parts();
    let document = Arc::new(openapi());
    let router = match app.till.as_ref().map(|till| till.provider()) {
        Some(Provider::Sandbox(sandbox)) => router.merge(sandbox.routes()),
        _ => router,
    };
    let router = router
        .merge(site::routes())
        .route("/openapi.json", get(move || async move { Json(document.as_ref().clone()) }))
        // `service` has taken every POST; what is left here came with a method that the path does not take.
        .route("/v1/sales/{sale}/items/{item}/purchases", any(purchases_are_posted));
    finish(router.fallback(site::nothing), app)
}

async fn purchases_are_posted() -> impl axum::response::IntoResponse {
    ([(http::header::ALLOW, "POST")], Problem::from(Refusal::MethodNotAllowed))
}

pub(crate) fn admin(app: &Arc<App>) -> Router {
    let (router, _) = admin_routes().split_for_parts();
    let router = router.route("/healthz", get(shop::healthz)).route("/readyz", get(shop::readyz));
    finish(router.fallback(|| async { Problem::from(Refusal::NotFound) }), app)
}

fn finish(router: Router<Arc<App>>, app: &Arc<App>) -> Router {
    router
        .merge(docs::routes())
        .method_not_allowed_fallback(|| async { Problem::from(Refusal::MethodNotAllowed) })
        .layer(axum::middleware::map_response(refuse_plainly))
        // `service` has read the body, within the bounds of its route.
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(app))
}

/// What an extractor refuses (a query that cannot be read, say) leaves as a problem too.
async fn refuse_plainly(response: axum::response::Response) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    let ours = response.extensions().get::<Problem>().is_some();
    if response.status() == http::StatusCode::BAD_REQUEST && !ours {
        return Problem::new(Refusal::Malformed, "the path or the query cannot be read").into_response();
    }
    response
}
