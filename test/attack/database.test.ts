// Runs the attack suite against the database tier.
import { attackTier } from "./suite.ts";

await attackTier("database");
