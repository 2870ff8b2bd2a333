"""The paper's tables and figures on the miniature."""
