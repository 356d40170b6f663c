"""Pure planning: ModelFacts and a target to a Plan. No file, no clock, no environment."""
