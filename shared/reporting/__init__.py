"""Report files as both sides handle them: typesetting, the sealed bundle, and the patient's identity."""
