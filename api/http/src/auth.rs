//! Who asks, and whether the route is theirs: bearer tokens (RFC 6750, section 2.1) and the permissions of
//! [`crate::route::ROUTES`]. Deny by default: without a token nothing is answered, not even which paths there are, but for
//! the routes that the table opens to strangers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use model::ctx::Ctx;
use model::id::{AccountId, TraceId};
use model::tenancy::Scope;
use tokio::sync::Semaphore;

use crate::deps::HttpDeps;
use crate::limit::{REQUESTS_OF_STRANGERS_MAX, REQUESTS_PER_ACCOUNT_MAX, TOKEN_MAX};
use crate::problem::Problem;
use crate::route::{self, Access, ROUTES};
use crate::share::Shares;
use crate::stranger::Known;

/// What the door needs: who they are, and how much each account, and all strangers together, have in work.
#[derive(Clone)]
pub(crate) struct Door {
    deps: HttpDeps,
    in_work: Arc<Shares<AccountId>>,
    strangers: Arc<Semaphore>,
}

impl Door {
    pub(crate) fn new(deps: HttpDeps) -> Self {
        let (in_work, strangers) = (Shares::new(REQUESTS_PER_ACCOUNT_MAX), Semaphore::new(REQUESTS_OF_STRANGERS_MAX));
        Self { deps, in_work, strangers: Arc::new(strangers) }
    }
}

/// Puts a [`Ctx`] into the request, lets a stranger through where the route is open, or answers 401, 403, 429 or 503.
pub(crate) async fn authenticate(
    State(Door { deps, in_work, strangers }): State<Door>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let trace = request.extensions().get::<TraceId>().copied().unwrap_or_else(|| TraceId::new(&*deps.ids));
    let Some(token) = bearer(request.headers())? else {
        if !is_open(&request) {
            return Err(Problem::unauthenticated(false));
        }
        let _place = strangers.try_acquire().map_err(|_| {
            let detail = format!("requests without a token have {REQUESTS_OF_STRANGERS_MAX} places, and all are taken");
            busy("strangers-busy", detail, "send a token, or repeat the request later")
        })?;
        return Ok(next.run(request).await);
    };
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    // The server puts it there; without it nobody is at any address of a list.
    let from = from.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let actor = deps.authenticator.token_authenticate(token, from, deps.clock.now().utc).await?;
    let actor = actor.ok_or_else(|| Problem::unauthenticated(true))?;
    if let Some(known) = request.extensions().get::<Known>() {
        known.set();
    }
    let _place = in_work.take(actor.account).ok_or_else(|| {
        let detail = format!("the account has {REQUESTS_PER_ACCOUNT_MAX} requests in work");
        busy("account-busy", detail, "repeat the request when others of the account are answered")
    })?;
    let scope = Scope::of(&actor.path);
    let ctx = Ctx { actor, scope, clock: deps.clock.clone(), ids: deps.ids.clone(), trace };
    if let Some(path) = request.extensions().get::<MatchedPath>() {
        authorise(&ctx, request.method(), path.as_str())?;
    }
    request.extensions_mut().insert(ctx);
    Ok(next.run(request).await)
}

fn busy(code: &'static str, detail: String, remedy: &'static str) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, code, detail, remedy).retry_after_s(1)
}

fn is_open(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>();
    let route = path.and_then(|path| route::find(request.method(), path.as_str()));
    route.is_some_and(|route| route.access == Access::Open)
}

/// The token of a request; none: it carries none, which is no error yet.
///
/// # Errors
/// 401 when the field is malformed or there twice.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    let invalid = || Problem::unauthenticated(true);
    if fields.next().is_some() {
        return Err(invalid());
    }
    let (scheme, token) = field.to_str().map_err(|_| invalid())?.split_once(' ').ok_or_else(invalid)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > TOKEN_MAX {
        return Err(invalid());
    }
    Ok(Some(token))
}

/// A path that is in the table under other methods only goes on to its 405; one that is not in it at all is refused.
fn authorise(ctx: &Ctx, method: &Method, path: &str) -> Result<(), Problem> {
    if ROUTES.iter().all(|route| route.path != path) {
        let detail = "the route has no entry in the table of permissions";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail, "report this defect"));
    }
    match route::find(method, path).map(|route| route.access) {
        Some(Access::Needs(permission)) => ctx.require(permission).map_err(Problem::forbidden),
        Some(Access::Open) | None => Ok(()),
    }
}
