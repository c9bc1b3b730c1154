"""How readers, AI and sites do over time: figures of many cases, never of a patient."""
