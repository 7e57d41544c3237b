//! The master keys that the surroundings give: in a variable, in the file that a variable names, or in a
//! credential of the service manager. Else the gateway makes one, in its data folder.

use std::path::PathBuf;

use onceward::master_key::KeyRing;

use crate::exit::Exit;

/// 64 hexadecimal digits; or several keys, the current one first.
const VARIABLE: &str = "ONCEWARD_MASTER_KEY";

/// A file that holds them, or the 32 bytes of one.
const FILE: &str = "ONCEWARD_MASTER_KEY_FILE";

/// The credential of that name (systemd: `LoadCredential=`), in the folder that the manager names.
const CREDENTIAL: &str = "onceward.master-key";

/// Where master keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The data folder: they were made here.
    Made,
    /// The variable, which stays as it is as long as the process.
    Variable,
    /// A file of somebody else's.
    File(PathBuf),
}

/// The keys, where some are given.
pub(crate) fn given_keys() -> Result<Option<(KeyRing, Source)>, Exit> {
    find(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Option<(KeyRing, Source)>, Exit> {
    match (variable(VARIABLE), variable(FILE)) {
        (Some(_), Some(_)) => Err(Exit::config(format!(
            "{VARIABLE} and {FILE} are both set\nhelp: keep one of them; a file shows in no list of processes"
        ))),
        (Some(text), None) => {
            let ring = KeyRing::of_text(&text).ok_or_else(|| {
                Exit::config(format!(
                    "{VARIABLE} is not 64 hexadecimal digits, nor several such keys between commas"
                ))
            })?;
            Ok(Some((ring, Source::Variable)))
        }
        (None, Some(path)) => read(FILE, PathBuf::from(path)).map(Some),
        (None, None) => {
            let folder = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
            let file = folder.map(|folder| folder.join(CREDENTIAL));
            // A manager need not have this one.
            file.filter(|file| file.exists()).map(|file| read("the credential", file)).transpose()
        }
    }
}

fn read(what: &str, path: PathBuf) -> Result<(KeyRing, Source), Exit> {
    let bytes = std::fs::read(&path)
        .map_err(|error| Exit::config(format!("{what}: {}: {error}", path.display())))?;
    let ring = KeyRing::of_file(&bytes).ok_or_else(|| {
        Exit::config(format!(
            "{what}: {} holds no master key\nhelp: it is 64 hexadecimal digits (openssl rand -hex 32), one key a line with the current one first, or 32 bytes",
            path.display()
        ))
    })?;
    Ok((ring, Source::File(path)))
}

#[cfg(test)]
mod tests {
    use onceward::core::hex;

    use super::*;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_key_comes_from_a_variable_a_file_or_a_credential() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (key, line) = (hex::decode(HEX).unwrap(), format!("{HEX}\n"));
        std::fs::write(at("text"), format!("{HEX}\n")).unwrap();
        std::fs::write(at("bytes"), &key).unwrap();
        std::fs::write(at("short"), &key[1..]).unwrap();
        std::fs::write(at("several"), format!("{HEX}\n{}\n", HEX.replace("00", "ff"))).unwrap();
        let with = |set: &[(&str, String)]| {
            find(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| value.clone()))
        };
        let found = |set: &[(&str, String)]| with(set).unwrap().map(|(ring, _)| ring.to_text());
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[(VARIABLE, HEX.to_owned())]).as_deref(), Some(&*line));
        assert_eq!(found(&[(FILE, at("text"))]).as_deref(), Some(&*line));
        assert_eq!(found(&[(FILE, at("bytes"))]).as_deref(), Some(&*line));
        let credentials = ("CREDENTIALS_DIRECTORY", folder.path().display().to_string());
        assert_eq!(found(std::slice::from_ref(&credentials)), None);
        std::fs::write(at(CREDENTIAL), HEX).unwrap();
        assert_eq!(found(&[credentials]).as_deref(), Some(&*line));
        let several = found(&[(FILE, at("several"))]).unwrap();
        assert!(several.starts_with(&line) && several.lines().count() == 2, "{several}");
        assert_eq!(found(&[(VARIABLE, several.replace('\n', ","))]), Some(several));
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
