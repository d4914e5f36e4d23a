"""Which plan a problem gets: plan, planner, environment and decisions."""
