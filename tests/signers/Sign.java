// Prints a token for each key: nimbus-jose-jwt. java -cp JARS Sign.java KEYS VERSION
import com.nimbusds.jose.*;
import com.nimbusds.jose.crypto.*;
import com.nimbusds.jose.jwk.*;
import com.nimbusds.jwt.*;
import java.nio.file.*;
import java.util.*;

public class Sign {
    static String version;

    static void sign(JWSAlgorithm alg, JWSSigner signer, String kid) throws Exception {
        var header = new JWSHeader.Builder(alg).type(JOSEObjectType.JWT);
        if (kid != null) header.keyID(kid);
        var claims = new JWTClaimsSet.Builder().subject("alice").audience(List.of("todos"))
            .issueTime(new Date(1800000000L * 1000)).expirationTime(new Date(4102444800L * 1000)).build();
        var token = new SignedJWT(header.build(), claims);
        token.sign(signer);
        System.out.printf("{\"signer\": \"nimbus %s\", \"alg\": \"%s\", \"token\": \"%s\"}%n", version, alg, token.serialize());
    }

    public static void main(String[] arguments) throws Exception {
        version = arguments[1];
        var folder = Path.of(arguments[0]);
        // Its reader of PEM wants the public key beside the private one of an elliptic curve.
        var rsa = JWK.parseFromPEMEncodedObjects(Files.readString(folder.resolve("rsa.pem"))).toRSAKey();
        sign(JWSAlgorithm.RS256, new RSASSASigner(rsa), "rsa");
        sign(JWSAlgorithm.PS256, new RSASSASigner(rsa), "rsa");
        var ec = JWK.parseFromPEMEncodedObjects(Files.readString(folder.resolve("ec.pem")) + "\n" + Files.readString(folder.resolve("ec.pub.pem"))).toECKey();
        sign(JWSAlgorithm.ES256, new ECDSASigner(ec), "ec");
        var secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".getBytes();
        for (var alg : List.of(JWSAlgorithm.HS256, JWSAlgorithm.HS384, JWSAlgorithm.HS512)) sign(alg, new MACSigner(secret), null);
    }
}
