//! Metrics and health, for the machine itself: no tokens, so never on a public address.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;

use crate::limit::REQUEST_TIMEOUT;

/// One thing that must hold for the node to take work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is looked at, such as `store`.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

/// Whether the node can take work. The root implements it.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// Looks at everything, within a second or so.
    async fn checks(&self) -> Vec<Check>;
}

/// Reads what the process has measured; [`install_metrics`] gives it.
pub type MetricsHandle = PrometheusHandle;

/// Makes this process measure itself. Once per process, before anything is measured.
///
/// # Errors
/// When something else measures already.
pub fn install_metrics() -> Result<MetricsHandle, BuildError> {
    PrometheusBuilder::new().install_recorder()
}

#[derive(Clone)]
struct AdminState {
    metrics: PrometheusHandle,
    readiness: Arc<dyn Readiness>,
}

#[derive(Serialize)]
struct ReadyDto {
    ready: bool,
    checks: Vec<Check>,
}

/// `/metrics` (Prometheus text), `/healthz` (the process answers) and `/readyz` (200 or 503 with the checks).
pub fn admin_router(metrics: PrometheusHandle, readiness: Arc<dyn Readiness>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(AdminState { metrics, readiness })
}

async fn metrics_text(State(state): State<AdminState>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let late = Check { name: "readiness", ok: false, detail: "the checks took too long".to_owned() };
    let checks = tokio::time::timeout(REQUEST_TIMEOUT, state.readiness.checks()).await;
    let checks = checks.unwrap_or_else(|_| vec![late]);
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyDto { ready, checks })).into_response()
}
