"""The two agents of a registered unit, and the operations that people and programs ask of units."""
