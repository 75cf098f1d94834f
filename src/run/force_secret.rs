//! The secret of `[gray] force_secret_file`, read by a start and by each reload.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::config::GraySettings;
use crate::process::secret::Secret;

/// Reads it, if there is to be one. A start may be root, who may read what the gateway's user may not.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn read(settings: &GraySettings) -> io::Result<Option<Arc<Secret>>> {
    let path = settings.force_secret_file.as_deref();
    let secret = path.map(|path| read_file(path, settings)).transpose()?;
    Ok(secret.map(Arc::new))
}

fn read_file(path: &Path, settings: &GraySettings) -> io::Result<Secret> {
    let failed = |error: io::Error| {
        let what = format!("[gray] force_secret_file: {}: {error}", path.display());
        io::Error::new(error.kind(), what)
    };
    Secret::read(path, "secret", |it| settings.takes_secret(it)).map_err(failed)
}

/// Reads it anew, for settings that are to follow the `current` ones. One in the same file that only root may
/// read stays, and true is returned if it may be another one by now.
///
/// # Errors
/// As [`read`].
pub(super) fn renew(current: &GraySettings, new: &mut GraySettings) -> io::Result<bool> {
    let path = new.force_secret_file.as_deref();
    let is_same = path.is_some() && path == current.force_secret_file.as_deref();
    match (read(new), path) {
        (Ok(secret), _) => {
            new.force_secret = secret;
            Ok(false)
        }
        (Err(error), Some(path)) if is_same && error.kind() == io::ErrorKind::PermissionDenied => {
            let before = current.force_secret.clone();
            let is_other = before.as_ref().is_none_or(|it| it.is_replaced(path));
            new.force_secret = before;
            Ok(is_other)
        }
        (Err(error), _) => Err(error),
    }
}
