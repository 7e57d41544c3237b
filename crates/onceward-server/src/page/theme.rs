//! Light or dark: as the system has it, or as whoever looks has chosen. The choice is a cookie that the
//! page's script writes, so that a page comes in its colours at once and nothing has to run first.

use http::{HeaderMap, header};

/// The cookie; it says nothing of anybody.
const COOKIE: &str = "onceward_theme";

tokio::task_local! {
    /// What the request says whose page is made.
    static THEME: Option<&'static str>;
}

/// Which one a request chooses.
pub(super) fn of(headers: &HeaderMap) -> Option<&'static str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(|line| line.split(';'));
    let chosen =
        cookies.find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    ["light", "dark"].into_iter().find(|theme| *theme == chosen)
}

/// Has the page that `make` makes come in these colours.
pub(super) fn within<T>(theme: Option<&'static str>, make: impl FnOnce() -> T) -> T {
    THEME.sync_scope(theme, make)
}

/// The same, for what takes its time.
pub(super) async fn during<F: Future>(theme: Option<&'static str>, make: F) -> F::Output {
    THEME.scope(theme, make).await
}

/// The one that was chosen; nothing where it is the system's.
pub(super) fn chosen() -> Option<&'static str> {
    THEME.try_with(|theme| *theme).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_one_of_two_words_and_all_else_is_the_systems() {
        for (cookies, theme) in [
            ("onceward_theme=dark", Some("dark")),
            ("a=b; onceward_theme=light; c=d", Some("light")),
            ("onceward_theme=\"><script>", None),
            ("not_onceward_theme=dark", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, cookies.parse().expect("a value"));
            assert_eq!(within(of(&headers), chosen), theme, "{cookies}");
        }
        assert_eq!(chosen(), None, "outside of a request");
    }
}
