//! What the document of the API says of an endpoint, beside what the table of endpoints knows of it.

/// What is said of an endpoint. Names are those of components (`components.yaml`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Described {
    /// What a client calls it.
    pub(super) id: &'static str,
    /// The part of the API that it belongs to.
    pub(super) tag: &'static str,
    /// What it does, in a line.
    pub(super) summary: &'static str,
    /// What its query and its headers may say.
    pub(super) parameters: &'static [&'static str],
    pub(super) body: Body,
    /// The statuses of its answers, and the schema of each.
    pub(super) answers: &'static [(u16, Shape)],
    /// What its answers say in headers.
    pub(super) headers: &'static [&'static str],
    /// The codes of its refusals, beside those that every endpoint of its kind has.
    pub(super) refusals: &'static [&'static str],
    /// The word that stands at a place of the path, where that place takes several.
    pub(super) word: Option<(&'static str, &'static str)>,
}

/// A request's body.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    None,
    /// A document of this schema.
    Needed(&'static str),
    /// The same, or nothing.
    Perhaps(&'static str),
}

/// What an answer is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// JSON of this schema.
    Json(&'static str),
    /// JSON, a document a line.
    Lines,
    /// A stream of events, as a browser's `EventSource` reads it.
    Events,
    Text,
    /// Text in either format of Prometheus.
    Metrics,
}

/// Of `tag`, an endpoint that a client calls `id`.
pub(super) const fn about(tag: &'static str, id: &'static str, summary: &'static str) -> Described {
    Described {
        id,
        tag,
        summary,
        parameters: &[],
        body: Body::None,
        answers: &[],
        headers: &[],
        refusals: &[],
        word: None,
    }
}

impl Described {
    pub(super) const fn takes(self, parameters: &'static [&'static str]) -> Self {
        Self { parameters, ..self }
    }

    pub(super) const fn reads(self, schema: &'static str) -> Self {
        Self { body: Body::Needed(schema), ..self }
    }

    pub(super) const fn may_read(self, schema: &'static str) -> Self {
        Self { body: Body::Perhaps(schema), ..self }
    }

    pub(super) const fn gives(self, answers: &'static [(u16, Shape)]) -> Self {
        Self { answers, ..self }
    }

    pub(super) const fn says(self, headers: &'static [&'static str]) -> Self {
        Self { headers, ..self }
    }

    pub(super) const fn refuses(self, refusals: &'static [&'static str]) -> Self {
        Self { refusals, ..self }
    }

    /// Where `word` stands at `place`.
    pub(super) const fn at(self, place: &'static str, word: &'static str) -> Self {
        Self { word: Some((place, word)), ..self }
    }
}
