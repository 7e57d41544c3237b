//! The master key that the surroundings give: a variable, the file that a variable names, or a
//! credential of the service manager. Else the gateway makes one, in its data folder.

use std::path::{Path, PathBuf};

use onceward::core::hex;

use crate::exit::Exit;

/// 64 hexadecimal digits.
const VARIABLE: &str = "ONCEWARD_MASTER_KEY";

/// A file that holds them, or the 32 bytes.
const FILE: &str = "ONCEWARD_MASTER_KEY_FILE";

/// The credential of that name (systemd: `LoadCredential=`), in the folder that the manager names.
const CREDENTIAL: &str = "onceward.master-key";

/// The key, where one is given.
pub(crate) fn given_key() -> Result<Option<[u8; 32]>, Exit> {
    find(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Option<[u8; 32]>, Exit> {
    match (variable(VARIABLE), variable(FILE)) {
        (Some(_), Some(_)) => Err(Exit::config(format!(
            "{VARIABLE} and {FILE} are both set\nhelp: keep one of them; a file shows in no list of processes"
        ))),
        (Some(text), None) => {
            let key = of_text(text.as_bytes());
            key.map(Some)
                .ok_or_else(|| Exit::config(format!("{VARIABLE} is not 64 hexadecimal digits")))
        }
        (None, Some(path)) => read(FILE, Path::new(&path)).map(Some),
        (None, None) => {
            let folder = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
            let file = folder.map(|folder| folder.join(CREDENTIAL));
            // A manager need not have this one.
            file.filter(|file| file.exists()).map(|file| read("the credential", &file)).transpose()
        }
    }
}

fn read(what: &str, path: &Path) -> Result<[u8; 32], Exit> {
    let bytes = std::fs::read(path)
        .map_err(|error| Exit::config(format!("{what}: {}: {error}", path.display())))?;
    // A key whose bytes are all digits and white space is not met by chance.
    of_text(&bytes).or_else(|| bytes.try_into().ok()).ok_or_else(|| {
        Exit::config(format!(
            "{what}: {} holds no master key\nhelp: it is 64 hexadecimal digits (openssl rand -hex 32), or 32 bytes",
            path.display()
        ))
    })
}

fn of_text(text: &[u8]) -> Option<[u8; 32]> {
    hex::decode(std::str::from_utf8(text).ok()?.trim())?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_key_comes_from_a_variable_a_file_or_a_credential() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let key = hex::decode(HEX).unwrap();
        std::fs::write(at("text"), format!("{HEX}\n")).unwrap();
        std::fs::write(at("bytes"), &key).unwrap();
        std::fs::write(at("short"), &key[1..]).unwrap();
        let with = |set: &[(&str, String)]| {
            find(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.clone()))
        };
        let found = |set: &[(&str, String)]| with(set).unwrap().map(Vec::from);
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[(VARIABLE, HEX.to_owned())]).as_deref(), Some(&key[..]));
        assert_eq!(found(&[(FILE, at("text"))]).as_deref(), Some(&key[..]));
        assert_eq!(found(&[(FILE, at("bytes"))]).as_deref(), Some(&key[..]));
        let credentials = ("CREDENTIALS_DIRECTORY", folder.path().display().to_string());
        assert_eq!(found(std::slice::from_ref(&credentials)), None);
        std::fs::write(at(CREDENTIAL), HEX).unwrap();
        assert_eq!(found(&[credentials]).as_deref(), Some(&key[..]));
        for wrong in [
            vec![(VARIABLE, HEX[1..].to_owned())],
            vec![(FILE, at("short"))],
            vec![(FILE, at("nowhere"))],
            vec![(VARIABLE, HEX.to_owned()), (FILE, at("text"))],
        ] {
            let said = with(&wrong).unwrap_err();
            assert_eq!(said.code, 78, "{wrong:?}");
            assert!(!said.message.contains(&HEX[1..]), "{}", said.message);
        }
    }
}
