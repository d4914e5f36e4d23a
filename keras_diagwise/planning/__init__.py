"""From a call to its plan: dispatcher, planner, and the decisions that are shipped."""
