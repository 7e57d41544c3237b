//! Cookies of ours: their names, how they are set, and that none of them goes anywhere else.

use http::{HeaderMap, HeaderValue, header};

/// What a cookie of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cookie {
    /// The session of whoever is logged in.
    Session,
    /// A login by the identity provider that is under way.
    Login,
    /// When somebody looked at the overview with this browser: it says that alone.
    Looked,
}

/// How long a login that is under way has: a person types a password, and finds a second factor.
const LOGIN_SECONDS: u32 = 600;

/// How long it is known when somebody looked: whoever comes later than that begins anew.
const LOOKED_SECONDS: u32 = 30 * 24 * 3600;

/// Before the name of one that only a host itself can set, and only over TLS (RFC 6265bis, section 4.1.3.2).
const HOST: &str = "__Host-";

impl Cookie {
    const ALL: [Self; 3] = [Self::Session, Self::Login, Self::Looked];

    /// Its name without what stands before it over TLS.
    fn name(self) -> &'static str {
        match self {
            Self::Session => "onceward",
            Self::Login => "onceward-login",
            Self::Looked => "onceward-looked",
        }
    }

    /// The line that sets it to a value of letters that need no quotes.
    pub(crate) fn set(self, value: &str, is_secured: bool) -> HeaderValue {
        let age = match self {
            Self::Session => String::new(),
            Self::Login => format!("; Max-Age={LOGIN_SECONDS}"),
            Self::Looked => format!("; Max-Age={LOOKED_SECONDS}"),
        };
        self.line(value, &age, is_secured)
    }

    /// The line that takes it away.
    pub(crate) fn clear(self, is_secured: bool) -> HeaderValue {
        self.line("", "; Max-Age=0", is_secured)
    }

    fn line(self, value: &str, age: &str, is_secured: bool) -> HeaderValue {
        let (before, secure) = if is_secured { (HOST, "; Secure") } else { ("", "") };
        let name = self.name();
        let line = format!("{before}{name}={value}; Path=/; HttpOnly; SameSite=Lax{age}{secure}");
        // What we set is of letters that a header takes.
        HeaderValue::from_str(&line).unwrap_or(HeaderValue::from_static(""))
    }
}

/// The cookies of ours that a request had.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cookies(Vec<(String, String)>);

impl Cookies {
    /// The value of one. Over TLS only that counts which a host itself has set: any name beside it could
    /// have set the other.
    pub(crate) fn get(&self, cookie: Cookie, is_secured: bool) -> Option<&str> {
        let before = if is_secured { HOST } else { "" };
        let is_it = |name: &str| name.strip_prefix(before) == Some(cookie.name());
        self.0.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value.as_str())
    }
}

/// Takes ours out of a request: they never go upstream. The others stay as they came.
pub(crate) fn take_cookies(headers: &mut HeaderMap) -> Cookies {
    let mut ours = Cookies::default();
    let has_ours = |line: &HeaderValue| {
        line.to_str().is_ok_and(|line| line.split(';').any(|pair| our_pair(pair).is_some()))
    };
    if !headers.get_all(header::COOKIE).iter().any(has_ours) {
        return ours;
    }
    let lines: Vec<_> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for line in lines {
        let Ok(text) = line.to_str() else {
            headers.append(header::COOKIE, line);
            continue;
        };
        let (found, others): (Vec<&str>, Vec<&str>) =
            text.split(';').partition(|pair| our_pair(pair).is_some());
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        ours.0.extend(found.into_iter().filter_map(our_pair).map(pair));
        let others = others.join(";");
        let others = others.trim();
        if let Ok(others) = HeaderValue::from_str(others)
            && !others.is_empty()
        {
            headers.append(header::COOKIE, others);
        }
    }
    ours
}

fn our_pair(pair: &str) -> Option<(&str, &str)> {
    let (name, value) = pair.trim().split_once('=')?;
    let bare = name.strip_prefix(HOST).unwrap_or(name);
    Cookie::ALL.iter().any(|cookie| cookie.name() == bare).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lines: &[&str]) -> (Cookies, Vec<String>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, line.parse().unwrap());
        }
        let ours = take_cookies(&mut headers);
        let left = headers.get_all(header::COOKIE).iter();
        (ours, left.map(|line| line.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn our_cookies_are_taken_out_and_all_others_stay() {
        let (ours, left) = taken(&["a=1; __Host-onceward=s; b=2", "onceward-login=l", "c=\"3\""]);
        assert_eq!(left, ["a=1; b=2", "c=\"3\""]);
        assert_eq!(ours.get(Cookie::Session, true), Some("s"));
        assert_eq!(ours.get(Cookie::Session, false), None, "it is of another listener");
        assert_eq!(ours.get(Cookie::Login, false), Some("l"));
        let (ours, left) = taken(&["x=1;y=2; onceward-session=other; z"]);
        assert_eq!(left, ["x=1;y=2; onceward-session=other; z"], "nothing of ours: as it came");
        assert_eq!(ours.get(Cookie::Session, false), None);
    }

    #[test]
    fn over_tls_a_cookie_is_the_hosts_own_and_never_sent_without() {
        let line = Cookie::Session.set("v", true);
        assert_eq!(line, "__Host-onceward=v; Path=/; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(Cookie::Session.set("v", false), "onceward=v; Path=/; HttpOnly; SameSite=Lax");
        assert!(Cookie::Login.clear(true).to_str().unwrap().contains("Max-Age=0"));
    }
}
