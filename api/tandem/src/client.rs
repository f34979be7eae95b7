//! A client of Tandem's own public interfaces: GraphQL and the billing routes, as a BSS or a reseller uses them. The
//! demo, the command line and the tests go through it, so that nothing works only from inside.

use std::time::Duration;

use model::secret::Secret;
use serde_json::{Value, json};

/// How long one request may take. Management calls answer in milliseconds; a file of a large month takes longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the transfer of a file may take.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Items that a list is asked for at once.
const PAGE: u32 = model::page::PAGE_MAX;

/// Why a request gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon could not be reached or broke off.
    #[error("the request to {url} failed")]
    Transport {
        /// Where to.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// An HTTP status that is no success.
    #[error("{url} answered {status}: {body}")]
    Status {
        /// Where to.
        url: String,
        /// The status.
        status: u16,
        /// The body, cut.
        body: String,
    },
    /// GraphQL reported errors.
    #[error("GraphQL refused: {0}")]
    GraphQl(String),
    /// The mutation was refused.
    #[error("{field} was refused: {errors}")]
    Refused {
        /// The mutation.
        field: String,
        /// Its `userErrors`.
        errors: String,
    },
    /// The certificates of an authority cannot be used.
    #[error("the file of the authority's certificates (--ca) holds none in PEM")]
    Authority(#[source] Option<reqwest::Error>),
    /// The answer lacks what was asked for.
    #[error("the answer has no {0}")]
    Missing(&'static str),
}

/// What a mutation answered.
#[derive(Debug, Clone)]
pub struct Mutated {
    /// The first object that was created or changed: its global identifier.
    pub id: String,
    /// The change set; none after a dry-run.
    pub change: Option<String>,
    /// Whether it is the stored answer of an earlier call.
    pub replayed: bool,
    /// A secret that is shown this once.
    pub secret: Option<Secret<String>>,
}

/// A client with one token.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Secret<String>,
}

impl Client {
    /// A client of the daemon at `base`, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When the HTTP library cannot be set up.
    pub fn new(base: &str, token: Secret<String>) -> Result<Self, ClientError> {
        Self::with_authority(base, token, None)
    }

    /// As [`Client::new`]; a daemon at `https://` may also show a certificate of the authority whose certificates `ca`
    /// holds in PEM, beside those of the public ones.
    ///
    /// # Errors
    /// [`ClientError::Authority`] when `ca` holds none; else when the HTTP library cannot be set up.
    pub fn with_authority(base: &str, token: Secret<String>, ca: Option<&[u8]>) -> Result<Self, ClientError> {
        let mut http = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).no_proxy();
        if let Some(ca) = ca {
            let found = reqwest::Certificate::from_pem_bundle(ca);
            let found = found.map_err(|source| ClientError::Authority(Some(source)))?;
            if found.is_empty() {
                return Err(ClientError::Authority(None));
            }
            http = found.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        }
        let http = http.build().map_err(|source| ClientError::Transport { url: base.to_owned(), source })?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// The same daemon with another token.
    #[must_use]
    pub fn with_token(&self, token: Secret<String>) -> Self {
        Self { token, ..self.clone() }
    }

    /// Runs a GraphQL document and gives its `data`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn graphql(&self, document: &str, variables: Value) -> Result<Value, ClientError> {
        let url = format!("{}/graphql", self.base);
        let request = self.http.post(&url).json(&json!({ "query": document, "variables": variables }));
        let response = self.send(url, request).await?;
        let mut answer: Value = serde_json::from_slice(&response).map_err(|_| ClientError::Missing("JSON body"))?;
        match answer.get("errors") {
            Some(errors) if !errors.is_null() => Err(ClientError::GraphQl(errors.to_string())),
            _ => Ok(answer.get_mut("data").map(Value::take).unwrap_or_default()),
        }
    }

    /// Runs one mutation by the conventions of the schema: `input: <Field>Input!`, a payload with `id` and `userErrors`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the `userErrors`, or as [`Client::graphql`].
    pub async fn mutate(&self, field: &str, input: Value) -> Result<Mutated, ClientError> {
        self.mutate_with(field, input, None).await
    }

    /// As [`Client::mutate`], with an idempotency key.
    ///
    /// # Errors
    /// As [`Client::mutate`].
    pub async fn mutate_with(&self, field: &str, input: Value, key: Option<&str>) -> Result<Mutated, ClientError> {
        let mut letters = field.chars();
        let type_name: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
        let document = format!(
            "mutation($input: {type_name}Input!, $key: String) {{ {field}(input: $input, idempotencyKey: $key) {{ \
             id changeId replayed revealedSecret userErrors {{ code field message remedy }} }} }}"
        );
        let data = self.graphql(&document, json!({ "input": input, "key": key })).await?;
        let payload = data.get(field).ok_or(ClientError::Missing("payload"))?;
        let errors = payload.get("userErrors").and_then(Value::as_array).cloned().unwrap_or_default();
        if !errors.is_empty() {
            return Err(ClientError::Refused { field: field.to_owned(), errors: Value::from(errors).to_string() });
        }
        let text = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Mutated {
            id: text("id").unwrap_or_default(),
            change: text("changeId"),
            replayed: payload.get("replayed").and_then(Value::as_bool).unwrap_or_default(),
            secret: text("revealedSecret").map(Secret::new),
        })
    }

    /// Fetches a path of the HTTP face.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        let url = format!("{}{path}", self.base);
        let request = self.http.get(&url);
        self.send(url, request).await
    }

    /// Fetches a path of the HTTP face as JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_json(&self, path: &str) -> Result<Value, ClientError> {
        serde_json::from_slice(&self.get(path).await?).map_err(|_| ClientError::Missing("JSON body"))
    }

    /// Fetches all pages of a list of the HTTP face.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_all(&self, path: &str) -> Result<Vec<Value>, ClientError> {
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let mut page = self.get_json(&format!("{path}?first={PAGE}{after}")).await?;
            match page["items"].take() {
                Value::Array(found) => items.extend(found),
                _ => return Err(ClientError::Missing("list of items")),
            }
            match (&page["hasNext"], &page["endCursor"]) {
                // A cursor is made of letters, digits, '-' and '_'.
                (Value::Bool(true), Value::String(cursor)) => after = format!("&after={cursor}"),
                _ => return Ok(items),
            }
        }
    }

    /// Posts JSON to a path of the HTTP face.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Vec<u8>, ClientError> {
        let url = format!("{}{path}", self.base);
        let request = self.http.post(&url).json(body);
        self.send(url, request).await
    }

    /// Posts a file to a path of the HTTP face, and gives the JSON of the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload(
        &self,
        path: &str,
        name: &str,
        content_type: &str,
        octets: Vec<u8>,
    ) -> Result<Value, ClientError> {
        let url = format!("{}{path}", self.base);
        let request = self.http.post(&url).query(&[("name", name)]).header("content-type", content_type).body(octets);
        let answer = self.send(url, request).await?;
        serde_json::from_slice(&answer).map_err(|_| ClientError::Missing("JSON body"))
    }

    /// Posts JSON with an `Idempotency-Key`: the same key gives the stored answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> Result<Vec<u8>, ClientError> {
        let url = format!("{}{path}", self.base);
        let request = self.http.post(&url).header("idempotency-key", key).json(body);
        self.send(url, request).await
    }

    /// Fetches a path piece by piece: a file of a large month does not fit into memory.
    ///
    /// # Errors
    /// [`ClientError`], or what `piece` gives.
    pub async fn download<E: From<ClientError>>(
        &self,
        path: &str,
        mut piece: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let url = format!("{}{path}", self.base);
        let request = self.http.get(&url).timeout(DOWNLOAD_TIMEOUT);
        let mut response = self.answer(&url, request).await?;
        let failed = |source| ClientError::Transport { url: url.clone(), source };
        while let Some(bytes) = response.chunk().await.map_err(failed)? {
            piece(&bytes)?;
        }
        Ok(())
    }

    async fn send(&self, url: String, request: reqwest::RequestBuilder) -> Result<Vec<u8>, ClientError> {
        let response = self.answer(&url, request).await?;
        let body = response.bytes().await.map_err(|source| ClientError::Transport { url, source })?;
        Ok(body.to_vec())
    }

    async fn answer(&self, url: &str, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let sent = request.bearer_auth(self.token.expose()).send().await;
        let failed = |source| ClientError::Transport { url: url.to_owned(), source };
        let response = sent.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(failed)?;
        let body: String = String::from_utf8_lossy(&body).chars().take(2_000).collect();
        Err(ClientError::Status { url: url.to_owned(), status: status.as_u16(), body })
    }
}
