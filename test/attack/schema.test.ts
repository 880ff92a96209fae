// Runs the attack suite against the schema tier.
import { attackTier } from "./suite.ts";

await attackTier("schema");
