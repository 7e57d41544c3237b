//! Words of the API: an enum of those that this release knows, and any that a later one says.

/// An enum of words. A word that it does not know is [`Other`], so that answers of later releases
/// can be read; without any word it is that, empty.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] $variant,)+
            /// A word of a later release.
            Other(String),
        }

        impl $name {
            /// The word, as the API writes it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<str>::deserialize(from).map(|word| Self::from(&*word))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use crate::shapes::State;

    #[test]
    fn a_word_of_a_later_release_is_read_and_written_as_it_is() {
        let states: Vec<State> = serde_json::from_str(r#"["in_doubt", "asleep"]"#).unwrap();
        assert_eq!(states, [State::InDoubt, State::Other("asleep".to_owned())]);
        assert_eq!(serde_json::to_string(&states).unwrap(), r#"["in_doubt","asleep"]"#);
    }
}
