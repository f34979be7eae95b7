//! A request and its result, whatever transport they take.

use async_graphql::parser::parse_query;
use async_graphql::parser::types::OperationType;
use async_graphql::{Request, Variables};
use serde_json::{Map, Value, json};

use crate::error::BAD_REQUEST;
use crate::limit::DOCUMENT_MAX;
use crate::{document, stranger};

/// What a client asks for.
pub(crate) struct Asked {
    query: String,
    operation_name: Option<String>,
    variables: Value,
}

/// A request within the limits, with the operation that it runs.
pub(crate) struct Runnable {
    pub(crate) request: Request,
    pub(crate) operation: OperationType,
    pub(crate) is_for_strangers: bool,
}

impl Asked {
    /// The parameters (section 5.1): types are checked, null counts as left out, unknown ones are ignored.
    pub(crate) fn of(whole: Value) -> Result<Self, String> {
        let Value::Object(mut whole) = whole else {
            return Err("the body is no JSON object; batches are not taken".to_owned());
        };
        let mut take = |name: &str| whole.remove(name).unwrap_or_default();
        let Value::String(query) = take("query") else { return Err("query is missing or no string".to_owned()) };
        let operation_name = match take("operationName") {
            Value::Null => None,
            Value::String(name) => Some(name),
            _ => return Err("operationName is no string".to_owned()),
        };
        let variables = take("variables");
        if !matches!(variables, Value::Null | Value::Object(_)) {
            return Err("variables is no map".to_owned());
        }
        if !matches!(take("extensions"), Value::Null | Value::Object(_)) {
            return Err("extensions is no map".to_owned());
        }
        if query.len() > DOCUMENT_MAX {
            return Err(format!("the document has more than {DOCUMENT_MAX} octets; put values into variables"));
        }
        Ok(Self { query, operation_name, variables })
    }

    /// Parses, and refuses what is too large before anybody walks it.
    pub(crate) fn judge(self) -> Result<Runnable, String> {
        let document = parse_query(&self.query).map_err(|error| error.to_string())?;
        document::check(&document).map_err(|error| error.to_string())?;
        let operation =
            document::operation(&document, self.operation_name.as_deref()).map_err(|error| error.to_string())?;
        document::check_variables(operation, &self.variables).map_err(|error| error.to_string())?;
        let (kind, is_for_strangers) = (operation.ty, stranger::is_for_strangers(&document, operation));
        let variables = Variables::from_json(document::with_defaults(operation, self.variables));
        let mut request = Request::new(self.query).variables(variables);
        request.operation_name = self.operation_name;
        request.set_parsed_query(document);
        Ok(Runnable { request, operation: kind, is_for_strangers })
    }
}

/// A result as it is sent.
pub(crate) struct Written {
    /// `data` and `errors`; of a refusal `errors` alone.
    pub(crate) body: Value,
    /// A request error happened before execution: it has no data and no path (section 6.4.2).
    pub(crate) is_refusal: bool,
}

impl Written {
    pub(crate) fn of(response: &async_graphql::Response) -> Self {
        let before = !response.errors.is_empty() && response.errors.iter().all(|error| error.path.is_empty());
        let is_refusal = before && response.data == async_graphql::Value::Null;
        let mut whole = serde_json::to_value(response).unwrap_or_default();
        let mut body = Map::new();
        if !is_refusal {
            body.insert("data".to_owned(), whole.get_mut("data").map(Value::take).unwrap_or_default());
        }
        if let Some(mut errors) = whole.get_mut("errors").map(Value::take) {
            errors.as_array_mut().into_iter().flatten().for_each(complete);
            body.insert("errors".to_owned(), errors);
        }
        Self { body: Value::Object(body), is_refusal }
    }
}

/// An error of the request.
pub(crate) fn coded(message: &str) -> Value {
    json!({ "message": message, "extensions": { "code": BAD_REQUEST } })
}

/// An error of parsing, validation or coercion has no code of its own: the request is to blame.
fn complete(error: &mut Value) {
    let Some(error) = error.as_object_mut() else { return };
    let extensions = error.entry("extensions").or_insert_with(|| json!({}));
    if let Some(extensions) = extensions.as_object_mut() {
        extensions.entry("code").or_insert_with(|| Value::from(BAD_REQUEST));
    }
}
