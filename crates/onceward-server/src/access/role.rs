//! What a key may do: a set of roles, as a mask of bits.

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles(u8);

impl Roles {
    /// None is needed.
    pub(crate) const NONE: Self = Self(0);
    /// Calls, callbacks and claims, and a look at what became of one's own.
    pub(crate) const SEND: Self = Self(1);
    /// What the ledger holds, without headers and bodies.
    pub(crate) const READ: Self = Self(1 << 1);
    /// Headers and bodies beside it.
    pub(crate) const PAYLOADS: Self = Self(1 << 2);
    /// What a person does about operations and routes.
    pub(crate) const OPERATE: Self = Self(1 << 3);
    /// Access keys, the audit, backups.
    pub(crate) const ADMIN: Self = Self(1 << 4);
    /// Every one.
    pub(crate) const ALL: Self = Self((1 << Self::NAMES.len()) - 1);

    const NAMES: [(&str, Self); 5] = [
        ("send", Self::SEND),
        ("read", Self::READ),
        ("payloads", Self::PAYLOADS),
        ("operate", Self::OPERATE),
        ("admin", Self::ADMIN),
    ];

    /// The role of this name; `payloads` has `read` with it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name)?.1;
        Some(if found == Self::PAYLOADS { found.and(Self::READ) } else { found })
    }

    /// Keys that were kept before there were roles may do everything, as they could.
    pub(super) fn all() -> Self {
        Self::ALL
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in it.
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that are not in `other`.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(_, role)| self.has(*role)).map(|(name, _)| name)
    }

    /// The names, for a sentence.
    pub(crate) fn said(self) -> String {
        self.names().collect::<Vec<_>>().join(", ")
    }
}

impl Serialize for Roles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for Roles {
    /// A role of a later release is none here.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let roles = names.iter().filter_map(|name| Self::named(name));
        Ok(roles.fold(Self::NONE, Self::and))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_as_they_are_written_and_payloads_have_read_with_them() {
        assert_eq!(Roles::ALL.said(), "send, read, payloads, operate, admin");
        for (name, role) in Roles::NAMES {
            let read: Roles = serde_json::from_str(&format!("[{name:?}]")).unwrap();
            assert!(read.has(role), "{name}");
            let again: Roles =
                serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
            assert_eq!(again, read, "{name}");
        }
        assert_eq!(Roles::named("payloads").unwrap().said(), "read, payloads");
        assert!(!Roles::named("send").unwrap().has(Roles::READ));
        let later: Roles = serde_json::from_str(r#"["send", "of-a-later-release"]"#).unwrap();
        assert_eq!(later, Roles::SEND);
        assert_eq!(
            Roles::ALL.without(Roles::SEND.and(Roles::ADMIN)).said(),
            "read, payloads, operate"
        );
    }
}
