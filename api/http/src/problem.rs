//! Errors as problem details (RFC 9457, section 3).

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use model::change::{ChangeError, Refusal, RefusalCode};
use model::ctx::Denied;
use model::id::TraceId;
use model::page::ReadError;
use serde::Serialize;

/// What a request without a token is asked for (RFC 6750, section 3).
pub const CHALLENGE: &str = r#"Bearer realm="tandem""#;

/// What went wrong, for a program (`type`, `status`, `field`) and for a person (`detail`, `remedy`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<Parts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    remedy: String,
    retry_after_s: Option<u32>,
    challenge: Option<&'static str>,
    others: Vec<Refusal>,
}

#[derive(Serialize)]
struct Body9457<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    remedy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<TraceId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ErrorDto<'a>>,
}

#[derive(Serialize)]
struct ErrorDto<'a> {
    code: &'static str,
    field: &'a str,
    message: &'a str,
    remedy: &'a str,
}

impl Problem {
    /// A problem of a class; `code` ends its `type`.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            detail: detail.into(),
            field: None,
            remedy: remedy.into(),
            retry_after_s: None,
            challenge: None,
            others: Vec::new(),
        }))
    }

    /// The argument that is to blame.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// When to try again, seconds.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// Nobody is known under the token, or none was sent (RFC 6750, section 3).
    #[must_use]
    pub fn unauthenticated(sent: bool) -> Self {
        let (detail, challenge) = if sent {
            ("the bearer token is unknown, expired or revoked", r#"Bearer realm="tandem", error="invalid_token""#)
        } else {
            ("the request carries no bearer token", CHALLENGE)
        };
        let remedy = "send Authorization: Bearer followed by a valid token";
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail, remedy);
        problem.0.challenge = Some(challenge);
        problem
    }

    /// A permission is missing.
    #[must_use]
    pub fn forbidden(denied: Denied) -> Self {
        let detail = format!("the permission {} is missing", denied.permission);
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail, "ask for a token that carries it")
    }

    /// There is no such object, or not for this token.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        let detail = format!("there is no such {what} within reach of this token");
        Self::new(StatusCode::NOT_FOUND, "not-found", detail, "check the identifier, or list what there is")
    }

    /// A malformed argument.
    #[must_use]
    pub fn invalid(field: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail, remedy).at(field)
    }

    /// The store cannot be asked now.
    #[must_use]
    pub fn unavailable() -> Self {
        let detail = "the store is not available; nothing was changed";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail, "repeat the request").retry_after_s(1)
    }

    /// A defect of ours.
    #[must_use]
    pub fn internal() -> Self {
        let remedy = "give the trace to the operator: the log has the cause under it";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request failed by a defect of the server", remedy)
    }

    /// For answers of the framework that carry only a status.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let (code, detail, remedy) = match status {
            StatusCode::NOT_FOUND => ("not-found", "there is no such path", "see the list of routes in the manual"),
            StatusCode::METHOD_NOT_ALLOWED => {
                ("method-not-allowed", "the path does not know this method", "use a method of the Allow header")
            }
            _ if status.is_server_error() => return Self::internal(),
            _ => ("invalid", "the request is malformed", "check path, query and headers"),
        };
        Self::new(status, code, detail, remedy)
    }

    /// The answer with its trace.
    pub(crate) fn render(&self, trace: Option<TraceId>) -> Response {
        let parts = &*self.0;
        let errors = parts.others.iter().map(|refusal| ErrorDto {
            code: refusal.code.as_str(),
            field: &refusal.field,
            message: &refusal.message,
            remedy: &refusal.remedy,
        });
        let body = Body9457 {
            r#type: format!("urn:tandem:problem:{}", parts.code),
            title: parts.status.canonical_reason().unwrap_or("Error"),
            status: parts.status.as_u16(),
            detail: &parts.detail,
            field: parts.field.as_deref(),
            remedy: &parts.remedy,
            trace,
            errors: errors.collect(),
        };
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = parts.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = parts.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// Marks a response as a problem, so that the outermost layer can add the trace.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(self);
        response
    }
}

/// Puts the trace into a problem's body; an error of the framework becomes a problem.
pub(crate) fn finish(mut response: Response, trace: TraceId) -> Response {
    let status = response.status();
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_bare_error(&response) => Problem::of_status(status),
        None => return response,
    };
    let allow = response.headers_mut().remove(ALLOW);
    let content_range = response.headers_mut().remove(axum::http::header::CONTENT_RANGE);
    let mut rendered = problem.render(Some(trace));
    let headers = rendered.headers_mut();
    allow.and_then(|value| headers.insert(ALLOW, value));
    content_range.and_then(|value| headers.insert(axum::http::header::CONTENT_RANGE, value));
    rendered
}

fn is_bare_error(response: &Response) -> bool {
    let status = response.status();
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    (status.is_client_error() || status.is_server_error())
        && content_type.is_none_or(|content_type| content_type.starts_with("text/plain"))
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Denied(denied) => Self::forbidden(denied),
            ReadError::Invalid { field, message } => Self::invalid(field, message, "correct the argument"),
            ReadError::Unavailable(cause) => {
                tracing::warn!(cause, "a read found the store unavailable");
                Self::unavailable()
            }
            ReadError::Internal(cause) => {
                tracing::error!(cause, "a read failed by a defect");
                Self::internal()
            }
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(refusals) => Self::refused(refusals),
            ChangeError::Unavailable(cause) => {
                tracing::warn!(cause, "a change found the store unavailable");
                Self::unavailable()
            }
            ChangeError::Internal(cause) => {
                tracing::error!(cause, "a change failed by a defect");
                Self::internal()
            }
        }
    }
}

impl Problem {
    fn refused(refusals: Vec<Refusal>) -> Self {
        let Some(first) = refusals.first().cloned() else { return Self::internal() };
        let (status, code) = match first.code {
            RefusalCode::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            RefusalCode::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            RefusalCode::Conflict => (StatusCode::CONFLICT, "conflict"),
            RefusalCode::QuotaExceeded => (StatusCode::CONFLICT, "quota-exceeded"),
            RefusalCode::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            RefusalCode::VersionMismatch => (StatusCode::PRECONDITION_FAILED, "version-mismatch"),
            RefusalCode::IdempotencyConflict => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-conflict"),
            RefusalCode::InUse => (StatusCode::CONFLICT, "in-use"),
        };
        let mut problem = Self::new(status, code, first.message, first.remedy);
        problem.0.field = (!first.field.is_empty()).then_some(first.field);
        if refusals.len() > 1 {
            problem.0.others = refusals;
        }
        problem
    }
}
