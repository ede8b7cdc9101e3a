"""The paper's tables and figures: cells that are trained once, and what is made of them."""
