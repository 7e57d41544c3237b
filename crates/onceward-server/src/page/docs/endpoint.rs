//! An endpoint of the API: who may ask it, what it takes, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use serde_json::Value;

use super::example::{self, Base};
use super::schema::{Field, Shapes};
use super::{document, followed, name_of, problems, said, text};

/// An address with a method, or with several that are told alike.
pub(super) struct Told {
    path: &'static str,
    /// Each method, and what is said of it.
    methods: Vec<(&'static str, &'static Value)>,
}

/// What belongs to a part of the API, by address.
pub(super) fn of(part: &str) -> impl Iterator<Item = Told> {
    let mut all: Vec<Told> = Vec::new();
    for (path, methods) in document()["paths"].as_object().into_iter().flatten() {
        let methods = methods.as_object().into_iter().flatten();
        for (method, operation) in methods.filter(|(_, operation)| operation["tags"][0] == part) {
            let alike = all.last_mut().filter(|told| told.path == path && told.is_like(operation));
            match alike {
                Some(told) => told.methods.push((method, operation)),
                None => all.push(Told { path, methods: vec![(method, operation)] }),
            }
        }
    }
    all.into_iter()
}

impl Told {
    /// What is said of it: of all its methods, where there are several.
    fn operation(&self) -> &'static Value {
        // `of` puts one in.
        self.methods.first().map_or(&Value::Null, |(_, operation)| operation)
    }

    fn is_like(&self, other: &Value) -> bool {
        let same = |member: &str| self.operation().get(member) == other.get(member);
        ["description", "security", "parameters", "responses"].into_iter().all(same)
    }

    /// Each by its name.
    pub(super) fn named(self) -> impl Iterator<Item = (&'static str, &'static Value)> {
        self.methods.into_iter().map(|(_, operation)| (said(operation, "operationId"), operation))
    }

    /// A line of a table of contents for each method, on the page at `place`.
    pub(super) fn lines(&self, place: &str) -> Markup {
        html! {
            @for (method, operation) in &self.methods {
                li {
                    a href={ (place) "#" (said(operation, "operationId")) } { (self.head(method)) }
                    " " span.soft { (text::line(said(operation, "summary"))) }
                }
            }
        }
    }

    fn head(&self, method: &str) -> Markup {
        html! { span.method.(method) { (method.to_uppercase()) } " " code { (self.path) } }
    }

    /// Everything of it; but for the refusals that are `common` to all on its page.
    pub(super) fn section(&self, base: &Base, common: &Refusals, shapes: &mut Shapes) -> Markup {
        let operation = self.operation();
        html! {
            section.card.endpoint {
                @for (method, operation) in &self.methods {
                    h2 id=(said(operation, "operationId")) { (self.head(method)) }
                    @if self.methods.len() == 1 { p { (text::line(said(operation, "summary"))) "." } }
                }
                @if let Some(more) = operation["description"].as_str() { p { (text::line(more)) } }
                (who_may(operation))
                @let parameters = parameters(operation, shapes);
                @if !parameters.is_empty() {
                    h3 { "Parameters" }
                    ul.fields { @for parameter in &parameters { (parameter) } }
                }
                (self.body(shapes))
                h3 { "Example" }
                @for (method, operation) in &self.methods {
                    pre.curl data-method=(method) tabindex="0" { code { (example::curl(self.path, method, operation, base)) } }
                }
                h3 { "Answers" }
                (answers(operation, common, shapes))
            }
        }
    }

    /// The request's body, of those methods that have one.
    fn body(&self, shapes: &mut Shapes) -> Markup {
        let with =
            self.methods.iter().find(|(_, operation)| operation.get("requestBody").is_some());
        let Some(body) = with.map(|(_, operation)| &operation["requestBody"]) else {
            return html! {};
        };
        let json = &body["content"]["application/json"];
        let is_needed = body["required"] == true;
        html! {
            h3 { "Body" }
            @if json.is_null() {
                p { "Anything, as the upstream takes it; methods that only read have none." }
            } @else {
                p {
                    code { "application/json" }
                    @if !is_needed { ", or nothing" }
                }
                (shapes.tree(&json["schema"]))
            }
        }
    }
}

/// Which keys may ask it, and how far those come that are confined.
fn who_may(operation: &'static Value) -> Markup {
    let choices = operation["security"].as_array().into_iter().flatten();
    let choices: Vec<&Value> = choices.filter_map(|choice| choice.get("accessKey")).collect();
    let roles = |choice: &&Value| {
        let names = choice.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
    };
    let who = match choices.iter().map(roles).collect::<Vec<_>>().as_slice() {
        [] => "Anybody: no key is asked for.".to_owned(),
        [none] if none.is_empty() => "Any access key, whatever its role.".to_owned(),
        [role] => format!("An access key with the role {role}."),
        [role, own, ..] => {
            format!("An access key with the role {role}; or with the role {own}, about its own.")
        }
    };
    let reach = match said(operation, "x-onceward-reach") {
        "gateway" => "It is of the tenant `default`, and confined to no routes.",
        "whole" => "It is confined to no routes.",
        "kept" => {
            "Where it is confined to routes: about those; one of another tenant where that has the route alone."
        }
        "route" | "operation" | "said" => "Where it is confined to routes: about those.",
        _ => "",
    };
    let pages = operation["x-onceward-pages"] == true;
    html! {
        p.who {
            strong { "Who may: " }
            (text::line(&who)) " " (text::line(reach))
            @if pages { " A key for web pages may, too." }
        }
    }
}

fn parameters(operation: &'static Value, shapes: &mut Shapes) -> Vec<Markup> {
    let all = operation["parameters"].as_array().into_iter().flatten().map(followed);
    let fields = all.map(|parameter| Field {
        name: said(parameter, "name"),
        place: said(parameter, "in"),
        is_needed: parameter["required"] == true,
        about: parameter["description"].as_str(),
        schema: &parameter["schema"],
    });
    fields.map(|field| shapes.field(&field)).collect()
}

/// Refusals: a status, and a code that it may come with.
pub(super) type Refusals = BTreeSet<(&'static str, &'static str)>;

fn refusals(operation: &'static Value) -> Refusals {
    let answers = operation["responses"].as_object().into_iter().flatten();
    let codes = answers.flat_map(|(status, answer)| {
        let codes = followed(answer)["x-onceward-codes"].as_array().into_iter().flatten();
        codes.filter_map(Value::as_str).map(|code| (status.as_str(), code))
    });
    codes.collect()
}

/// Those that each of several endpoints has.
pub(super) fn common(all: &[Told]) -> Refusals {
    let [first, others @ ..] = all else { return Refusals::new() };
    let others: Vec<Refusals> = others.iter().map(|told| refusals(told.operation())).collect();
    let is_common = |it: &(&str, &str)| others.iter().all(|other| other.contains(it));
    let mut common = refusals(first.operation());
    common.retain(|it| !others.is_empty() && is_common(it));
    common
}

/// By status, each code with what it means.
pub(super) fn refused(refusals: &Refusals) -> Markup {
    let mut by_status: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (status, code) in refusals {
        by_status.entry(status).or_default().push(code);
    }
    html! {
        @for (status, codes) in by_status {
            dt { span.status.refused { (status) } }
            dd {
                ul.codes {
                    @for code in codes {
                        li { a href={ "/docs/problems#" (code) } { code { (code) } } ": " (problems::title(code)) }
                    }
                }
            }
        }
    }
}

/// Those that are no refusals first.
fn answers(operation: &'static Value, common: &Refusals, shapes: &mut Shapes) -> Markup {
    let all = operation["responses"].as_object().into_iter().flatten();
    let all: Vec<_> = all.map(|(status, answer)| (status.as_str(), followed(answer))).collect();
    let is_refusal = |answer: &Value| answer.get("x-onceward-codes").is_some();
    let done = all.into_iter().filter(|(_, answer)| !is_refusal(answer));
    let own: Refusals = refusals(operation).difference(common).copied().collect();
    html! {
        dl.answers { @for (status, answer) in done { (answered(status, answer, shapes)) } (refused(&own)) }
        @if !common.is_empty() {
            p.small { "And what " a href="#refusals" { "every endpoint of this page" } " may refuse with." }
        }
    }
}

/// What is no refusal; where the status stands for one as well, that comes behind it.
fn answered(status: &'static str, answer: &'static Value, shapes: &mut Shapes) -> Markup {
    let kinds = answer["content"].as_object().into_iter().flatten();
    let kinds: Vec<_> = kinds.filter(|(kind, _)| *kind != "application/problem+json").collect();
    let headers = answer["headers"].as_object().into_iter().flatten();
    let headers: Vec<_> = headers.map(|(name, header)| (name.as_str(), followed(header))).collect();
    html! {
        dt { span.status { (status) } }
        dd {
            p { (text::line(said(answer, "description"))) "." }
            @for (kind, content) in kinds {
                @let schema = content.get("schema");
                p {
                    @if kind == "*/*" { "Anything" } @else { code { (kind) } }
                    @if let Some(schema) = schema.filter(|schema| name_of(schema).is_some()) {
                        ": " (shapes.kind(schema))
                    }
                }
            }
            @if !headers.is_empty() {
                ul.fields {
                    @for (name, header) in headers {
                        (shapes.field(&Field {
                            name,
                            place: "header",
                            is_needed: false,
                            about: header["description"].as_str(),
                            schema: &header["schema"],
                        }))
                    }
                }
            }
        }
    }
}
