"""AWS as the toolkit calls it: clients, options, what errors mean."""
