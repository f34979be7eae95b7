//! The routes, their permissions, and the router made of them.

use axum::Router;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use model::actor::Permission;
use tower_http::catch_panic::CatchPanicLayer;

use crate::deps::HttpDeps;
use crate::{auth, billing_files, bulk, reports, shield};

/// Where GraphQL is answered.
pub const GRAPHQL_PATH: &str = "/graphql";
/// Where GraphQL is spoken over WebSocket. The upgrade is for strangers too: the token may come in the first message.
pub const GRAPHQL_WS_PATH: &str = "/graphql/ws";
/// What the GraphiQL page at [`GRAPHQL_PATH`] loads.
pub const GRAPHQL_ASSET_PATH: &str = "/graphql/assets/{asset}";

/// One route. A test walks the table: without a token 401 but where it is open, without the permission 403, a foreign
/// object 404.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method; GET stands for HEAD too.
    pub method: Method,
    /// The path in axum's notation.
    pub path: &'static str,
    /// For whom it is.
    pub access: Access,
}

/// For whom a route is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever has a valid token that carries this.
    Needs(Permission),
    /// A request without a token comes through too, as a stranger's: it has no [`model::ctx::Ctx`], and the handler says
    /// what is for strangers. A token that is no good is refused as everywhere.
    Open,
}

const fn route(method: Method, path: &'static str, permission: Permission) -> Route {
    Route { method, path, access: Access::Needs(permission) }
}

const fn open(method: Method, path: &'static str) -> Route {
    Route { method, path, access: Access::Open }
}

/// The entry of a request; HEAD has that of GET.
pub(crate) fn find(method: &Method, path: &str) -> Option<&'static Route> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|route| route.path == path && route.method == *method)
}

/// Every route of the public face.
pub const ROUTES: &[Route] = &[
    open(Method::GET, GRAPHQL_PATH),
    open(Method::POST, GRAPHQL_PATH),
    open(Method::GET, GRAPHQL_WS_PATH),
    open(Method::GET, GRAPHQL_ASSET_PATH),
    route(Method::GET, "/billing/streams", Permission::BillingRead),
    route(Method::GET, "/billing/streams/{stream}/files", Permission::BillingRead),
    route(Method::GET, "/billing/streams/{stream}/files/{sequence}", Permission::BillingRead),
    route(Method::GET, "/billing/streams/{stream}/files/{sequence}/content", Permission::BillingRead),
    route(Method::GET, "/billing/streams/{stream}/files/{sequence}/manifest", Permission::BillingRead),
    route(Method::POST, "/billing/streams/{stream}/files/{sequence}/ack", Permission::BillingAcknowledge),
    route(Method::POST, "/billing/streams/{stream}/close", Permission::BillingWrite),
    route(Method::POST, "/bulk/jobs", Permission::ProvisioningWrite),
    route(Method::GET, "/bulk/jobs/{job}", Permission::ProvisioningRead),
    // They hold the passwords that were drawn.
    route(Method::GET, "/bulk/jobs/{job}/results", Permission::ProvisioningWrite),
    route(Method::GET, "/bulk/export", Permission::ProvisioningRead),
    route(Method::GET, "/reports/runs", Permission::ReportRead),
    route(Method::GET, "/reports/runs/{run}", Permission::ReportRead),
    route(Method::GET, "/reports/runs/{run}/html", Permission::ReportRead),
    route(Method::GET, "/reports/runs/{run}/csv", Permission::ReportRead),
    route(Method::GET, "/reports/runs/{run}/xlsx", Permission::ReportRead),
];

/// The public face. `graphql` answers [`GRAPHQL_PATH`]; it finds the [`model::ctx::Ctx`] of a caller with a
/// token among the extensions.
pub fn router(deps: HttpDeps, graphql: Router) -> Router {
    let files = "/billing/streams/{stream}/files";
    let file = |rest: &str| format!("{files}/{{sequence}}{rest}");
    Router::new()
        .route("/billing/streams", get(billing_files::stream_list))
        .route(files, get(billing_files::file_list))
        .route(&file(""), get(billing_files::file_get))
        .route(&file("/content"), get(billing_files::content))
        .route(&file("/manifest"), get(billing_files::manifest))
        .route(&file("/ack"), post(billing_files::acknowledge))
        .route("/billing/streams/{stream}/close", post(billing_files::close))
        .route("/bulk/jobs", post(bulk::upload))
        .route("/bulk/jobs/{job}", get(bulk::job_get))
        .route("/bulk/jobs/{job}/results", get(bulk::results))
        .route("/bulk/export", get(bulk::export))
        .route("/reports/runs", get(reports::run_list))
        .route("/reports/runs/{run}", get(reports::run_get))
        .route("/reports/runs/{run}/html", get(reports::html))
        .route("/reports/runs/{run}/csv", get(reports::csv))
        .route("/reports/runs/{run}/xlsx", get(reports::xlsx))
        .with_state(deps.clone())
        .merge(graphql)
        .layer(from_fn_with_state(auth::Door::new(deps.clone()), auth::authenticate))
        .layer(from_fn(shield::time_limit))
        .layer(from_fn_with_state(shield::admission(), shield::admit))
        .layer(CatchPanicLayer::custom(shield::panicked))
        .layer(from_fn_with_state(shield::Observer::new(deps), shield::observe))
}
