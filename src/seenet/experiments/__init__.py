"""The paper's evidence, one command each: ablations (Table 1)."""
