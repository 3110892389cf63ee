"""The base class of the settings of all channels."""

from typing import Any, ClassVar

from config.masking import MASK, mask_webhook
from config.section import Section


class ChannelSection(Section):
    """Settings of a channel. A subclass has the key `type`.

    Attributes:
        secret_keys: Keys whose values are secrets. Each of them has a key KEY_file that names a file with the secret.
        secret_mappings: Keys whose values are mappings to secrets. NAME_file: PATH reads the value of NAME from a file.
    """

    secret_keys: ClassVar[tuple[str, ...]] = ()
    secret_mappings: ClassVar[tuple[str, ...]] = ()

    @property
    def target(self) -> str:
        """Return the receiver without its secrets, for lists of channels."""
        raise NotImplementedError

    def masked(self) -> dict[str, Any]:
        """Return the settings in the form of the file, with secrets masked."""
        shown = self.model_dump(mode="json")
        shown |= {key: _mask(shown[key]) for key in self.secret_keys}
        return shown | {key: dict.fromkeys(shown[key], MASK) for key in self.secret_mappings}


def _mask(secret: str) -> str:
    return mask_webhook(secret) if secret.startswith(("http://", "https://")) else MASK if secret else ""
