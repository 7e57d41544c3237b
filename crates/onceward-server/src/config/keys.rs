//! What a route says about keys and how long things are kept, as the file says it.

use std::fmt::Display;

use onceward::core::key_template::KeyTemplate;
use onceward::core::operation::Deed;
use onceward::core::pattern::Pattern;
use onceward::core::policy::{KeyFrom, KeyTime, Policy, UniqueRule};
use serde::Deserialize;
use serde::de::Deserializer;

use super::{ConfigError, KeyFile, Pointer, PolicyFile};
use crate::units::Span;

/// A pattern for keys.
#[derive(Debug, Clone)]
pub(super) struct PatternWord(Pattern);

/// A template for keys.
#[derive(Debug, Clone)]
pub(super) struct TemplateWord(KeyTemplate);

/// What a person does that wants a second one.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ApproveWord {
    Redeliver,
    Cancel,
    Resolve,
    Forget,
    Extend,
    Rotate,
}

impl ApproveWord {
    pub(super) fn deeds(self) -> &'static [Deed] {
        match self {
            Self::Redeliver => &[Deed::Redelivered],
            Self::Cancel => &[Deed::Cancelled],
            Self::Resolve => &[Deed::ResolvedDone, Deed::ResolvedNotSent],
            // A revocation forgets too.
            Self::Forget => &[Deed::Forgot],
            Self::Extend => &[Deed::Extended],
            Self::Rotate => &[Deed::Rotated],
        }
    }
}

/// What a time is good for that a key bears.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum KeyTimeWord {
    Ignore,
    RefuseLate,
    Require,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UniqueFile {
    json: Option<Pointer>,
    template: Option<TemplateWord>,
    within: Option<Span>,
}

fn told<E: serde::de::Error>(text: &str, error: impl Display) -> E {
    E::custom(format!("{text:?}: {error}"))
}

impl<'de> Deserialize<'de> for PatternWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Pattern::read(&text).map(Self).map_err(|error| told(&text, error))
    }
}

impl<'de> Deserialize<'de> for TemplateWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        KeyTemplate::read(&text).map(Self).map_err(|error| told(&text, error))
    }
}

impl Pointer {
    /// The template that names what is there.
    fn template(&self, wrong: &impl Fn(&str) -> ConfigError) -> Result<KeyTemplate, ConfigError> {
        KeyTemplate::read(&format!("{{json:{}}}", self.0))
            .map_err(|error| wrong(&format!("has the pointer {:?}: {error}", self.0)))
    }
}

/// Lays over `policy` what `key` says.
pub(super) fn lay_key(
    policy: &mut Policy,
    key: &KeyFile,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<(), ConfigError> {
    let rule = &mut policy.key_rule;
    rule.length_min = key.length_min.unwrap_or(rule.length_min);
    if let Some(PatternWord(pattern)) = &key.pattern {
        rule.pattern = Some(pattern.clone());
    }
    if let Some(refuse) = &key.refuse {
        rule.refuse = refuse.iter().map(|PatternWord(pattern)| pattern.clone()).collect();
    }
    if let Some(TemplateWord(template)) = &key.template {
        if key.json.is_some() {
            return Err(wrong("has key.json and key.template\nhelp: keep one of them"));
        }
        policy.key_from = KeyFrom::Template(template.clone());
    }
    policy.key_time = match key.time {
        Some(KeyTimeWord::Ignore) => KeyTime::Ignore,
        Some(KeyTimeWord::RefuseLate) => KeyTime::RefuseLate,
        Some(KeyTimeWord::Require) => KeyTime::Require,
        None => policy.key_time,
    };
    Ok(())
}

/// Lays over `policy` what the rest of the file says about the life of keys.
pub(super) fn lay_life(
    policy: &mut Policy,
    file: &PolicyFile,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<(), ConfigError> {
    if let Some(unique) = &file.unique {
        let name = match (&unique.json, &unique.template) {
            (Some(pointer), None) => pointer.template(wrong)?,
            (None, Some(TemplateWord(template))) => template.clone(),
            _ => {
                return Err(wrong(
                    "has a unique that names nothing\nhelp: unique = { json = \"/order\", within = \"24h\" }",
                ));
            }
        };
        let within = unique.within.map_or(policy.window, |span| span.0);
        if within > policy.window.saturating_add(policy.tombstone) {
            return Err(wrong(
                "has a unique.within that is longer than its operations are known\nhelp: window and tombstone together are at least as long",
            ));
        }
        policy.unique = Some(UniqueRule { name, within });
    }
    policy.suspect_within = file.suspect_within.map_or(policy.suspect_within, |span| span.0);
    policy.retain_bodies = file.retain_bodies.map(|span| span.0).or(policy.retain_bodies);
    if let Some(redact) = &file.redact {
        policy.redact = redact.iter().map(|Pointer(pointer)| pointer.clone()).collect();
    }
    Ok(())
}
