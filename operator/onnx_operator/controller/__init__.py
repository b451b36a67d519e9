"""The controller: watches OnnxModels and their children, and makes the cluster hold what they ask for."""
