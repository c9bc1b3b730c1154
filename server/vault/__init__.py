"""The one place where private keys open."""

from server.vault.file_vault import FileVault
from server.vault.port import Vault

__all__ = ["FileVault", "Vault"]
