//! Chromium and its driver, for the tests that open the dashboard as a person would.

use std::path::PathBuf;

use crate::Outcome;
use crate::debian::{self, on_path};

/// Debian's names first, then what others call them.
const CHROMIUM: [&str; 4] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const DRIVER: [&str; 2] = ["chromedriver", "chromium.chromedriver"];

const MEND: &str = "install Chromium and chromedriver, so that `chromium` and `chromedriver` are on \
    PATH (Debian: apt-get install chromium chromium-driver), or set TEST_CHROMIUM and \
    TEST_CHROMEDRIVER to where they are";

/// A browser that tests can drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Browser {
    pub(crate) chromium: PathBuf,
    pub(crate) driver: PathBuf,
}

/// The browser that is here, or else Debian's.
pub(crate) fn find_or_install() -> Outcome<Browser> {
    if let Some(browser) = find()? {
        println!("browser: {}", browser.chromium.display());
        return Ok(browser);
    }
    println!("browser: none found, installing chromium and chromium-driver with apt-get");
    install().map_err(|error| format!("no browser for the tests: {error}\nmend: {MEND}"))?;
    let browser = find()?
        .ok_or_else(|| format!("no browser for the tests, though installed\nmend: {MEND}"))?;
    println!("browser: {}", browser.chromium.display());
    Ok(browser)
}

fn find() -> Outcome<Option<Browser>> {
    let chromium = named("TEST_CHROMIUM")?.or_else(|| CHROMIUM.into_iter().find_map(on_path));
    let driver = named("TEST_CHROMEDRIVER")?.or_else(|| DRIVER.into_iter().find_map(on_path));
    Ok(chromium.zip(driver).map(|(chromium, driver)| Browser { chromium, driver }))
}

/// Who says where it is has the last word; a word that is wrong is not passed over.
fn named(variable: &str) -> Outcome<Option<PathBuf>> {
    let Some(file) = std::env::var_os(variable).map(PathBuf::from) else {
        return Ok(None);
    };
    if file.is_file() {
        Ok(Some(file))
    } else {
        Err(format!("{variable} names {}, which is not a file: mend or unset it", file.display())
            .into())
    }
}

fn install() -> Outcome<()> {
    debian::install(&["chromium", "chromium-driver"])
}
