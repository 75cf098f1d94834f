//! The secret of `[verdict] webhook_secret_file`, read by a start and by each reload.

use std::io;
use std::sync::Arc;

use crate::config::WebhookSettings;
use crate::process::secret::SigningSecret;

/// Reads it, if there is to be one. A start may be root, who may read what the gateway's user may not.
///
/// # Errors
/// Why it cannot be used.
pub(crate) fn read(settings: Option<&WebhookSettings>) -> io::Result<Option<Arc<SigningSecret>>> {
    let path = settings.and_then(|it| it.secret_file.as_deref());
    let Some(path) = path else {
        return Ok(None);
    };
    let failed = |error: io::Error| {
        let what = format!("[verdict] webhook_secret_file: {}: {error}", path.display());
        io::Error::new(error.kind(), what)
    };
    let secret = SigningSecret::read(path, "secret").map_err(failed)?;
    Ok(Some(Arc::new(secret)))
}

/// Reads it anew, for settings that are to follow the `current` ones. One in the same file that only root may
/// read stays, and true is returned if it may be another one by now.
///
/// # Errors
/// As [`read`].
pub(super) fn renew(
    current: Option<&WebhookSettings>,
    new: Option<&mut WebhookSettings>,
) -> io::Result<bool> {
    let Some(new) = new else {
        return Ok(false);
    };
    let before = current.filter(|it| it.secret_file == new.secret_file);
    let before = before.and_then(|it| it.secret.clone());
    match (read(Some(new)), &new.secret_file, before) {
        (Ok(secret), ..) => {
            new.secret = secret;
            Ok(false)
        }
        (Err(error), Some(path), Some(before))
            if error.kind() == io::ErrorKind::PermissionDenied =>
        {
            let is_other = before.is_replaced(path);
            new.secret = Some(before);
            Ok(is_other)
        }
        (Err(error), ..) => Err(error),
    }
}
