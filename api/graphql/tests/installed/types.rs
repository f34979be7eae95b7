//! The types of the schema, from its introspection: what tests walk, so that a new field is covered by itself.

use serde_json::{Map, Value};

use super::face::Installed;

const INTROSPECTION: &str = "{ __schema { types { kind name enumValues { name } inputFields { name type { ...T } } \
    fields { name args { name type { ...T } } type { ...T } } } } } \
    fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }";

/// Every type of the schema.
pub struct Types(Vec<Value>);

/// What a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// Any text, as far as the schema says.
    Text,
    /// A text of a certain form: identifiers, enumerations, scalars.
    Formed,
    /// An integer.
    Number,
    Boolean,
}

/// A step from a value to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Field(String),
    /// The first of a list.
    First,
}

/// The way from an input to a value in it.
pub type Way = Vec<Step>;

impl Types {
    pub async fn of(face: &Installed) -> Self {
        let answer = face.ask(INTROSPECTION, Value::Null).await;
        Self(answer["data"]["__schema"]["types"].as_array().unwrap_or_else(|| panic!("{answer}")).clone())
    }

    fn find(&self, name: &str) -> &Value {
        self.0.iter().find(|kind| kind["name"] == name).unwrap_or_else(|| panic!("no type {name}"))
    }

    /// The fields of an object, or of a root, with their arguments.
    pub fn fields(&self, name: &str) -> &[Value] {
        array(&self.find(name)["fields"])
    }

    pub fn input_fields(&self, name: &str) -> &[Value] {
        array(&self.find(name)["inputFields"])
    }

    /// The values in an input of this type, each with its way, and the lists in it.
    pub fn leaves(&self, kind: &Value, way: &[Step]) -> (Vec<(Way, Leaf)>, Vec<Way>) {
        let name = kind["name"].as_str().unwrap_or_default();
        let mut found = (Vec::new(), Vec::new());
        match kind["kind"].as_str().unwrap() {
            "NON_NULL" => return self.leaves(&kind["ofType"], way),
            "LIST" => {
                found = self.leaves(&kind["ofType"], &[way, &[Step::First]].concat());
                found.1.push(way.to_vec());
            }
            "INPUT_OBJECT" => {
                for field in self.input_fields(name) {
                    let step = Step::Field(text(&field["name"]).to_owned());
                    let (leaves, lists) = self.leaves(&field["type"], &[way, &[step]].concat());
                    found.0.extend(leaves);
                    found.1.extend(lists);
                }
            }
            _ => found.0.push((
                way.to_vec(),
                match name {
                    "Int" | "Long" => Leaf::Number,
                    "Boolean" => Leaf::Boolean,
                    "String" => Leaf::Text,
                    _ => Leaf::Formed,
                },
            )),
        }
        found
    }

    /// A selection of every field that takes no argument or has a first page, two levels deep.
    pub fn selection(&self, name: &str, depth: usize) -> String {
        let fields = self.fields(name).iter().filter_map(|field| {
            let field_name = text(&field["name"]);
            let kind = bare(&field["type"]);
            match kind["kind"].as_str().unwrap() {
                "OBJECT" if depth == 0 => None,
                "OBJECT" if text(&kind["name"]).ends_with("Connection") => {
                    let node = text(&kind["name"]).trim_end_matches("Connection");
                    Some(format!("{field_name}(first: 1) {{ nodes {{ {} }} }}", self.selection(node, depth - 1)))
                }
                "OBJECT" => Some(format!("{field_name} {{ {} }}", self.selection(text(&kind["name"]), depth - 1))),
                _ => Some(field_name.to_owned()),
            }
        });
        fields.collect::<Vec<_>>().join(" ")
    }
}

pub fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[track_caller]
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The type without lists and exclamation marks.
fn bare(kind: &Value) -> &Value {
    if kind["ofType"].is_null() { kind } else { bare(&kind["ofType"]) }
}

/// How a way is told: `dialPlan.countryCode`, `rates.0.prefix`.
pub fn told(way: &[Step]) -> String {
    let steps = way.iter().map(|step| match step {
        Step::Field(name) => name.as_str(),
        Step::First => "0",
    });
    steps.collect::<Vec<_>>().join(".")
}

/// Puts a value at the end of a way, making what is not there.
pub fn put(into: &mut Value, way: &[Step], value: Value) {
    let Some((step, rest)) = way.split_first() else {
        *into = value;
        return;
    };
    match step {
        Step::Field(name) => {
            if !into.is_object() {
                *into = Value::Object(Map::new());
            }
            put(into.as_object_mut().unwrap().entry(name.clone()).or_insert(Value::Null), rest, value);
        }
        Step::First => {
            if !into.is_array() {
                *into = Value::Array(vec![Value::Null]);
            }
            let list = into.as_array_mut().unwrap();
            if list.is_empty() {
                list.push(Value::Null);
            }
            put(&mut list[0], rest, value);
        }
    }
}

/// What stands at a dotted way; a connection is entered through its nodes.
pub fn at<'a>(from: &'a Value, way: &str) -> Option<&'a Value> {
    way.split('.').try_fold(from, |value, step| match step.parse::<usize>() {
        Ok(index) => value.get(index).or_else(|| value.get("nodes")?.get(index)),
        Err(_) => value.get(step),
    })
}
